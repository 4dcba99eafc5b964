"""What the parameters of torchvision's heads are for, by the modules' names: torchvision is not imported."""

import math
from typing import Any

from wellposed.models.roles.registry import Part, Parts, role

_RARE = Part("fixed", start=math.log(0.01 / 0.99))
"""The bias of a class that one place in a hundred belongs to: without it the many others outweigh those in the loss."""


@role(
    "torchvision.models.detection.retinanet.RetinaNetClassificationHead",
    "torchvision.models.detection.fcos.FCOSClassificationHead",
)
def _classes_of_places(module: Any) -> Parts:
    return {"cls_logits.bias": _RARE}
