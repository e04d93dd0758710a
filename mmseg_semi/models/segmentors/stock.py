"""Attributes of a segmentor that MMSegmentation's tools, test-time augmentation and visualizer use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor, nn

from ..gradients import no_stale_casts


class StockSegmentor(BaseSegmentor):
    """A segmentor that forwards the stock interface to its network that predicts."""

    @property
    def predictor(self) -> nn.Module:
        """The network selected by ``semi_test_cfg.predict_on``."""
        return getattr(self, self.semi_test_cfg['predict_on'])

    @property
    def decode_head(self) -> nn.Module:
        return self.predictor.decode_head

    @property
    def num_classes(self) -> int:
        return self.predictor.num_classes

    @property
    def out_channels(self) -> int:
        return self.predictor.out_channels

    @property
    def ignore_index(self) -> int:
        """The label that the heads ignore. StartupCheckHook ensures that the whole config uses the same."""
        return self.decode_head.ignore_index

    @property
    def align_corners(self) -> bool:
        return self.predictor.align_corners

    def check_network_name(self, name: str) -> None:
        """Raise ValueError if ``name`` is not a network."""
        if name not in self.networks:
            raise ValueError(
                f"semi_test_cfg.predict_on='{name}' is not a network of {type(self).__name__}. Choose one of "
                f'{self.networks}.'
            )

    @contextmanager
    def predicting_with(self, name: str) -> Iterator[None]:
        """Let the network ``name`` predict inside the ``with`` block."""
        self.check_network_name(name)
        before = self.semi_test_cfg['predict_on']
        self.semi_test_cfg['predict_on'] = name
        try:
            yield
        finally:
            self.semi_test_cfg['predict_on'] = before

    @no_stale_casts()
    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        return self.predictor.extract_feat(inputs)

    @no_stale_casts()
    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        return self.predictor.encode_decode(inputs, batch_img_metas)

    @no_stale_casts()
    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        return self.predictor.predict(inputs, data_samples)

    @no_stale_casts()
    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        return self.predictor._forward(inputs, data_samples)
