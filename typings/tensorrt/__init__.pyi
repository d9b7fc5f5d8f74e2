"""The part of TensorRT's Python API that this package uses, for mypy.

Taken from tensorrt-stubs 10.13.0.35.1, https://github.com/sync-dev-org/tensorrt-stubs, copyright
(c) sync.dev, under the MIT licence: `../LICENSE`. Classes have the members that are used here,
enumerations all of them. Corrected: plans that may be None say so, memory can be read as bytes, and
shapes may be tuples.
"""

from collections.abc import Sequence
from typing import ClassVar, overload

__version__: str

class Builder:
    def __init__(self, logger: ILogger) -> None: ...
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_network(self, flags: int = 0) -> INetworkDefinition: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...

class BuilderFlag:
    BF16: ClassVar[BuilderFlag]
    DEBUG: ClassVar[BuilderFlag]
    DIRECT_IO: ClassVar[BuilderFlag]
    DISABLE_COMPILATION_CACHE: ClassVar[BuilderFlag]
    DISABLE_TIMING_CACHE: ClassVar[BuilderFlag]
    DISTRIBUTIVE_INDEPENDENCE: ClassVar[BuilderFlag]
    EDITABLE_TIMING_CACHE: ClassVar[BuilderFlag]
    ERROR_ON_TIMING_CACHE_MISS: ClassVar[BuilderFlag]
    EXCLUDE_LEAN_RUNTIME: ClassVar[BuilderFlag]
    FP16: ClassVar[BuilderFlag]
    FP4: ClassVar[BuilderFlag]
    FP8: ClassVar[BuilderFlag]
    GPU_FALLBACK: ClassVar[BuilderFlag]
    INT4: ClassVar[BuilderFlag]
    INT8: ClassVar[BuilderFlag]
    MONITOR_MEMORY: ClassVar[BuilderFlag]
    OBEY_PRECISION_CONSTRAINTS: ClassVar[BuilderFlag]
    PREFER_PRECISION_CONSTRAINTS: ClassVar[BuilderFlag]
    REFIT: ClassVar[BuilderFlag]
    REFIT_IDENTICAL: ClassVar[BuilderFlag]
    REFIT_INDIVIDUAL: ClassVar[BuilderFlag]
    REJECT_EMPTY_ALGORITHMS: ClassVar[BuilderFlag]
    SAFETY_SCOPE: ClassVar[BuilderFlag]
    SPARSE_WEIGHTS: ClassVar[BuilderFlag]
    STRICT_NANS: ClassVar[BuilderFlag]
    STRIP_PLAN: ClassVar[BuilderFlag]
    TF32: ClassVar[BuilderFlag]
    VERSION_COMPATIBLE: ClassVar[BuilderFlag]
    WEIGHTLESS: ClassVar[BuilderFlag]
    WEIGHT_STREAMING: ClassVar[BuilderFlag]

class DataType:
    BF16: ClassVar[DataType]
    BOOL: ClassVar[DataType]
    E8M0: ClassVar[DataType]
    FLOAT: ClassVar[DataType]
    FP4: ClassVar[DataType]
    FP8: ClassVar[DataType]
    HALF: ClassVar[DataType]
    INT32: ClassVar[DataType]
    INT4: ClassVar[DataType]
    INT64: ClassVar[DataType]
    INT8: ClassVar[DataType]
    UINT8: ClassVar[DataType]

class Dims:
    @overload
    def __getitem__(self, arg0: int) -> int: ...
    @overload
    def __getitem__(self, arg0: slice) -> tuple[int, ...]: ...
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, shape: list[int]) -> None: ...
    def __len__(self) -> int: ...

class ExecutionContextAllocationStrategy:
    ON_PROFILE_CHANGE: ClassVar[ExecutionContextAllocationStrategy]
    STATIC: ClassVar[ExecutionContextAllocationStrategy]
    USER_MANAGED: ClassVar[ExecutionContextAllocationStrategy]

class IBuilderConfig:
    progress_monitor: IProgressMonitor

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def clear_flag(self, flag: BuilderFlag) -> None: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...
    def get_timing_cache(self) -> ITimingCache: ...
    def get_flag(self, flag: BuilderFlag) -> bool: ...
    def set_flag(self, flag: BuilderFlag) -> None: ...
    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    @property
    def num_optimization_profiles(self) -> int: ...

class ICudaEngine:
    def __getitem__(self, arg0: int) -> str: ...
    @overload
    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ...
    ) -> IExecutionContext: ...
    @overload
    def create_execution_context(
        self, runtime_config: IRuntimeConfig | None = None
    ) -> IExecutionContext: ...
    def create_runtime_config(self) -> IRuntimeConfig: ...
    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def serialize(self) -> IHostMemory: ...
    @property
    def name(self) -> str: ...
    @property
    def num_io_tensors(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_optimization_profiles(self) -> int: ...

class IExecutionContext:
    name: str

    def execute_async_v3(self, stream_handle: int) -> bool: ...
    def infer_shapes(self) -> list[str]: ...
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool: ...
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...

class IHostMemory:
    def __buffer__(self, flags: int, /) -> memoryview: ...
    @property
    def dtype(self) -> DataType: ...

class ILayer:
    name: str

    def get_input(self, index: int) -> ITensor: ...
    def get_output(self, index: int) -> ITensor: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def num_outputs(self) -> int: ...
    @property
    def type(self) -> LayerType: ...

class ILogger:
    class Severity:
        ERROR: ClassVar[ILogger.Severity]
        INFO: ClassVar[ILogger.Severity]
        INTERNAL_ERROR: ClassVar[ILogger.Severity]
        VERBOSE: ClassVar[ILogger.Severity]
        WARNING: ClassVar[ILogger.Severity]

    ERROR: ClassVar[ILogger.Severity]
    INTERNAL_ERROR: ClassVar[ILogger.Severity]
    WARNING: ClassVar[ILogger.Severity]

    def __init__(self) -> None: ...

class INetworkDefinition:
    name: str

    def __getitem__(self, arg0: int) -> ILayer: ...
    def __len__(self) -> int: ...
    def get_input(self, index: int) -> ITensor: ...
    def get_layer(self, index: int) -> ILayer: ...
    def get_output(self, index: int) -> ITensor: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_outputs(self) -> int: ...

class IOptimizationProfile:
    def set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
    ) -> None: ...

class IProgressMonitor:
    def __init__(self) -> None: ...

class IRuntimeConfig:
    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy = ...
    ) -> None: ...

class ITensor:
    dtype: DataType
    name: str
    shape: Dims

class ITimingCache:
    def serialize(self) -> IHostMemory: ...

class LayerType:
    ACTIVATION: ClassVar[LayerType]
    ASSERTION: ClassVar[LayerType]
    CAST: ClassVar[LayerType]
    CONCATENATION: ClassVar[LayerType]
    CONDITION: ClassVar[LayerType]
    CONDITIONAL_INPUT: ClassVar[LayerType]
    CONDITIONAL_OUTPUT: ClassVar[LayerType]
    CONSTANT: ClassVar[LayerType]
    CONVOLUTION: ClassVar[LayerType]
    CUMULATIVE: ClassVar[LayerType]
    DECONVOLUTION: ClassVar[LayerType]
    DEQUANTIZE: ClassVar[LayerType]
    DYNAMIC_QUANTIZE: ClassVar[LayerType]
    EINSUM: ClassVar[LayerType]
    ELEMENTWISE: ClassVar[LayerType]
    FILL: ClassVar[LayerType]
    GATHER: ClassVar[LayerType]
    GRID_SAMPLE: ClassVar[LayerType]
    IDENTITY: ClassVar[LayerType]
    ITERATOR: ClassVar[LayerType]
    LOOP_OUTPUT: ClassVar[LayerType]
    LRN: ClassVar[LayerType]
    MATRIX_MULTIPLY: ClassVar[LayerType]
    NMS: ClassVar[LayerType]
    NON_ZERO: ClassVar[LayerType]
    NORMALIZATION: ClassVar[LayerType]
    ONE_HOT: ClassVar[LayerType]
    PADDING: ClassVar[LayerType]
    PARAMETRIC_RELU: ClassVar[LayerType]
    PLUGIN: ClassVar[LayerType]
    PLUGIN_V2: ClassVar[LayerType]
    PLUGIN_V3: ClassVar[LayerType]
    POOLING: ClassVar[LayerType]
    QUANTIZE: ClassVar[LayerType]
    RAGGED_SOFTMAX: ClassVar[LayerType]
    RECURRENCE: ClassVar[LayerType]
    REDUCE: ClassVar[LayerType]
    RESIZE: ClassVar[LayerType]
    REVERSE_SEQUENCE: ClassVar[LayerType]
    SCALE: ClassVar[LayerType]
    SCATTER: ClassVar[LayerType]
    SELECT: ClassVar[LayerType]
    SHAPE: ClassVar[LayerType]
    SHUFFLE: ClassVar[LayerType]
    SLICE: ClassVar[LayerType]
    SOFTMAX: ClassVar[LayerType]
    SQUEEZE: ClassVar[LayerType]
    TOPK: ClassVar[LayerType]
    TRIP_LIMIT: ClassVar[LayerType]
    UNARY: ClassVar[LayerType]
    UNSQUEEZE: ClassVar[LayerType]

class MemoryPoolType:
    DLA_GLOBAL_DRAM: ClassVar[MemoryPoolType]
    DLA_LOCAL_DRAM: ClassVar[MemoryPoolType]
    DLA_MANAGED_SRAM: ClassVar[MemoryPoolType]
    TACTIC_DRAM: ClassVar[MemoryPoolType]
    TACTIC_SHARED_MEMORY: ClassVar[MemoryPoolType]
    WORKSPACE: ClassVar[MemoryPoolType]

class NetworkDefinitionCreationFlag:
    EXPLICIT_BATCH: ClassVar[NetworkDefinitionCreationFlag]
    PREFER_AOT_PYTHON_PLUGINS: ClassVar[NetworkDefinitionCreationFlag]
    PREFER_JIT_PYTHON_PLUGINS: ClassVar[NetworkDefinitionCreationFlag]
    STRONGLY_TYPED: ClassVar[NetworkDefinitionCreationFlag]

class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None: ...
    def get_error(self, index: int) -> ParserError: ...
    def parse(self, model: bytes, path: str | None = None) -> bool: ...
    @property
    def num_errors(self) -> int: ...

class ParserError:
    def desc(self) -> str: ...
    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...

class Runtime:
    def __init__(self, logger: ILogger) -> None: ...
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...
