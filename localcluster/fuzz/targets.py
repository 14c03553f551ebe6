"""What can be asked, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from localcluster.fuzz.asking import Target
from localcluster.fuzz.extender_target import ExtenderTarget
from localcluster.fuzz.webhook_target import WebhookTarget

TARGETS: Mapping[str, Callable[[], Target]] = {"webhook": WebhookTarget, "extender": ExtenderTarget}
