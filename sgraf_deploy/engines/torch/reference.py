"""Engine `torch-reference`: the literal per-caption loop, the yardstick."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sgraf_deploy.config import GraphName, explain_signature
from sgraf_deploy.engines.torch.engine import Function, TensorEngine
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.reference import Reference


class ReferenceEngine(TensorEngine):
    """The literal per-caption loop in float32, slow on purpose: others are compared with it."""

    name = "torch-reference"

    def _explaining(self, member: str) -> Function:
        """The literal loop's own values on the way to its logits, pair by pair."""
        config = self._bundle.member(member).config
        model = Reference(config, self._weights(member), device=self._device)
        names = [spec.name for spec in explain_signature(config).outputs]

        def explain(*inputs: Tensor) -> tuple[Tensor, ...]:
            found = model.explain(Encoded(*inputs[:-2]), *inputs[-2:])
            return tuple(found[name] for name in names)

        return explain

    def _functions(self, member: str) -> Mapping[GraphName, Function]:
        config = self._bundle.manifest.members[member].config
        model = Reference(config, self._weights(member), device=self._device)

        def image_encoder(regions: Tensor) -> tuple[Tensor, ...]:
            embeddings = model.encode_images(regions)
            return embeddings, model.image_globals(embeddings), model.region_gram(embeddings)

        def text_encoder(token_ids: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
            words = model.encode_captions(token_ids, lengths)
            return words, model.text_globals(words, lengths)

        def scorer(
            regions: Tensor,
            _image: Tensor,
            words: Tensor,
            _text: Tensor,
            lengths: Tensor,
            *_: Tensor,
        ) -> tuple[Tensor, ...]:
            return (model.score(regions, words, lengths),)

        def pair_scorer(
            regions: Tensor,
            image: Tensor,
            words: Tensor,
            _text: Tensor,
            lengths: Tensor,
            *gram_and_index: Tensor,
        ) -> tuple[Tensor, ...]:
            image_index, caption_index = gram_and_index[-2:]
            logits = regions.new_empty(len(image_index))
            for caption in set(caption_index.tolist()):
                pairs = caption_index == caption
                rows = image_index[pairs].long()
                real = words[caption, : int(lengths[caption])]
                logits[pairs] = model.caption_logits(regions[rows], image[rows], real)
            return (logits,)

        return {
            "image_encoder": image_encoder,
            "text_encoder": text_encoder,
            "scorer": scorer,
            "pair_scorer": pair_scorer,
        }
