"""The runs of a plan in one profile and one lane: direct, or as captured CUDA graphs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sgraf_deploy.engines.cuda.api import CapturedGraph, Cuda
from sgraf_deploy.engines.cuda.lanes import Lane
from sgraf_deploy.engines.cuda.memory import DeviceArray
from sgraf_deploy.engines.trt.context import Run, TrtContext
from sgraf_deploy.errors import SgrafDeployError

MOST_CAPTURED = 16
"""The most CUDA graphs that are kept, each with a context of its own."""

REMEMBERED = 64
"""How many of the latest runs are remembered: a repeated one is captured, and a graph that none of
them launched makes room for it. With more repeated runs than graphs, some graphs then stay."""


@dataclass
class Captured:
    """A CUDA graph, the context that it was captured from, and the number of its last launch."""

    graph: CapturedGraph
    context: TrtContext
    launched: int


class TrtRuns:
    """Puts runs into a lane's stream.

    The second run at the same addresses and shapes is captured as a CUDA graph, and the third
    launches it: in a service that is every query from then on. By NVIDIA's documentation a graph
    is bound to the state of its context, which has to be run once after every change of shape
    before it is captured. So a graph has a context of its own, which runs once and is captured, and
    is bound to nothing else while the graph lives; all other runs share another context.

    After a run that cannot be captured, which is then run directly, nothing more is captured.
    """

    def __init__(
        self,
        cuda: Cuda,
        lane: Lane,
        scratch_bytes: int,
        make: Callable[[], TrtContext],
        report: Callable[[SgrafDeployError], None] | None,
    ) -> None:
        """`make` makes a context; `report` is told why one is not captured; None captures none.

        Raises what `make` raises.
        """
        self._cuda, self._lane, self._scratch_bytes = cuda, lane, scratch_bytes
        self._make, self._report = make, report
        self._direct = make()
        self._scratch = self._runs = 0
        self._seen: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._captured: OrderedDict[tuple[object, ...], Captured] = OrderedDict()

    def run(self, tensors: Mapping[str, DeviceArray], outputs: frozenset[str]) -> None:
        """Put a run on these tensors, by name, into the lane's stream."""
        run = Run(tensors, outputs, self._scratch_memory())
        key = run.key
        self._runs += 1
        found = self._captured.get(key)
        if found is not None:
            self._captured.move_to_end(key)
            found.launched = self._runs
            self._cuda.launch(found.graph, self._lane.stream)
        elif self._report is None or key not in self._seen or not self._has_room():
            self._remember(key)
            self._direct.run(run)
        else:
            self._run_and_capture(run, self._report)

    def close(self) -> None:
        """Drop graphs and contexts, none of which is running."""
        self._drop_captured()
        self._direct.close()

    def _scratch_memory(self) -> int:
        """The lane's scratch memory; graphs captured with another address of it are dropped."""
        scratch = self._lane.scratch(self._scratch_bytes) if self._scratch_bytes else 0
        if scratch != self._scratch:
            self._drop_captured()
            self._scratch = scratch
        return scratch

    def _remember(self, key: tuple[object, ...]) -> None:
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _has_room(self) -> bool:
        """Whether there is room for one more graph, or one was not launched for long."""
        if len(self._captured) < MOST_CAPTURED:
            return True
        oldest = next(iter(self._captured.values()))
        return self._runs - oldest.launched > REMEMBERED

    def _run_and_capture(self, run: Run, report: Callable[[SgrafDeployError], None]) -> None:
        context = None
        try:
            context = self._context()
            context.run(run)
            graph = context.capture(self._cuda)
        except SgrafDeployError as error:
            report(error)
            self._report = None
            if context is not None:
                self._lane.wait()
                context.close()
            self._direct.run(run)
        else:
            self._captured[run.key] = Captured(graph, context, self._runs)

    def _context(self) -> TrtContext:
        """A context that no graph was captured from: a new one, or that of the oldest graph."""
        if len(self._captured) < MOST_CAPTURED:
            return self._make()
        self._lane.drain()  # The graph may still be running.
        _, oldest = self._captured.popitem(last=False)
        self._cuda.destroy_graph(oldest.graph)
        return oldest.context

    def _drop_captured(self) -> None:
        if self._captured:
            self._lane.drain()
        while self._captured:
            _, captured = self._captured.popitem()
            self._cuda.destroy_graph(captured.graph)
            captured.context.close()
