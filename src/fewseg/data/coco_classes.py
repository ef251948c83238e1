"""COCO's 80 classes: names, category ids and their numbers here; VOC's classes among them."""

from __future__ import annotations

from types import MappingProxyType

from fewseg.data.folds import VOC_CLASSES, numbered

COCO_CLASSES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
    *("surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    *("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    *("chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock"),
    *("vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""Names in the order of their category ids; class x of COCO-20i is the x-th of them, from 1."""

_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # category ids without annotations

CATEGORY_IDS: tuple[int, ...] = tuple(i for i in range(1, 91) if i not in _UNUSED)
"""Category ids of the annotation files, 1 .. 90 with gaps, in the order of ``COCO_CLASSES``."""

CLASS_OF_CATEGORY: MappingProxyType[int, int] = MappingProxyType(
    {category: number for number, category in enumerate(CATEGORY_IDS, start=1)}
)
"""Category id 1 .. 90 -> class id 1 .. 80."""

_OTHER_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}

COCO_NAME_OF_VOC: MappingProxyType[str, str] = MappingProxyType(
    {name: _OTHER_NAMES.get(name, name) for name in VOC_CLASSES}
)
"""VOC's name of a class -> COCO's name of the same: COCO has all 20."""

COCO_OF_VOC: MappingProxyType[int, int] = MappingProxyType(
    {number: COCO_CLASSES.index(COCO_NAME_OF_VOC[name]) + 1 for number, name in numbered(VOC_CLASSES).items()}
)
"""VOC class id 1 .. 20 -> COCO class id 1 .. 80."""
