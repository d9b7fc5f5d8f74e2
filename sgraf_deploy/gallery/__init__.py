"""Encoded images, and captions, on disk by the caller's ids: a gallery to rerank from."""

from __future__ import annotations

from sgraf_deploy.gallery.record import Details
from sgraf_deploy.gallery.rows import Batch, Rows
from sgraf_deploy.gallery.store import Gallery

__all__ = ["Batch", "Details", "Gallery", "Rows"]
