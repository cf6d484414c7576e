"""One spelling per imaging modality, whatever a release calls it."""

from __future__ import annotations

import re

NAMES = {
    "mr": "MR",
    "mri": "MR",
    "magnetic": "MR",
    "ct": "CT",
    "computed": "CT",
    "x": "X-ray",
    "xray": "X-ray",
    "ultrasound": "Ultrasound",
    "us": "Ultrasound",
    "dermoscopy": "Dermoscopy",
    "microscopy": "Microscopy",
    "fundus": "Fundus",
    "oct": "OCT",
    "optical": "OCT",
    "endoscopy": "Endoscopy",
    "mammography": "Mammography",
    "pet": "PET",
}
"""First word in lower case -> the name used here."""


def modality_name(text: str) -> str:
    """Normalise a modality; one that is not known stays as it is written.

    Examples:
        >>> [modality_name(t) for t in ("MR (Mag-netic Resonance Imaging)", "CT(Computed Tomography)", "X-Ray")]
        ['MR', 'CT', 'X-ray']
        >>> [modality_name(t) for t in ("OCT (Optical Coherence Tomography", "ultrasound", "Infrared Reflectance")]
        ['OCT', 'Ultrasound', 'Infrared Reflectance']
    """
    first = re.match(r"[a-z]*", text.strip().lower()).group()
    return NAMES.get(first, text.strip())
