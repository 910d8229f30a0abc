"""Cards of the models of the first SAM's build, and of lungmask.

Facts marked "third-party" come from others' manifests and wait for the first real download.
Numbers of parameters were counted on the stock networks.
"""

from napari_lungfm.models.cards import (
    SAM_PIXEL_MEAN,
    SAM_PIXEL_STD,
    CheckpointCard,
    CheckValue,
    Preprocessing,
    PublishedFile,
)

_MEDSAM_CITATION = "Ma et al., Segment anything in medical images, Nat Commun 15, 654 (2024)"
_SAM_CITATION = "Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643"
_MEDSAM_WINDOW = (
    "its utils/README recommends level -600, width 1500 HU for lungs; its example code has "
    "40/400, and -160/1500 is reported for the article (third-party)"
)
_MEDSAM_DATA = (
    "1,570,263 image-mask pairs of ten modalities and over 30 cancer types from public sources"
)
_PUBLIC_LUNG = (
    "not stated which public lung data (NSCLC-Radiomics, MSD Task06, LIDC-IDRI) are among it; "
    "take scores on public lung CT as possibly seen in training"
)
_BOXES_ONLY = "clicks are outside its training: the prompt encoder is SAM's own, left as it was"
#: Names of the models that were trained with boxes and nothing else.
BOXES_ONLY = frozenset({"medsam", "litemedsam"})
_SAM_SLICES = Preprocessing(
    window=None,
    window_source="the publisher names none",
    fit="longest-side",
    normalisation="mean-std",
    mean=SAM_PIXEL_MEAN,
    std=SAM_PIXEL_STD,
)

SAM_CARDS = (
    CheckpointCard(
        name="medsam",
        family="sam",
        summary="SAM ViT-B trained on medical images; boxes",
        configuration=("vit_b",),
        input_size=1024,
        preprocessing=Preprocessing(
            window=(-600.0, 1500.0),
            window_source=_MEDSAM_WINDOW,
            fit="stretch",
            normalisation="min-max",
        ),
        prompts=(
            "one box a slice, its sides moved outwards by up to 20 px of 1024 in training; "
            f"{_BOXES_ONLY}"
        ),
        parameters=93_735_472,
        licence="Apache-2.0",
        commercial="yes",
        licence_note="third-party: the Zenodo record says CC-BY-4.0; both allow commercial use",
        training_data=_MEDSAM_DATA,
        leakage=_PUBLIC_LUNG,
        citation=_MEDSAM_CITATION,
        package="segment_anything",
        notes="not SamPredictor's preprocessing: min-max of the slice, no mean and deviation",
        files=(
            PublishedFile(
                variant="published",
                filename="medsam_vit_b.pth",
                architecture=("vit_b",),
                addresses=(
                    "https://zenodo.org/records/10689643/files/medsam_vit_b.pth?download=1",
                ),
                pages=(
                    "https://zenodo.org/records/10689643",
                    "https://drive.google.com/drive/folders/1ETWmi4AiniJeWOt6HAsYgTjYv_fkgzoN",
                ),
                checks=(CheckValue("md5", "3bb6db55bd0c9ca30b61248bca72f8d6"),),
                note="about 375 MB; address and check value are third-party",
            ),
        ),
    ),
    CheckpointCard(
        name="litemedsam",
        family="sam",
        summary="MedSAM distilled into a small TinyViT; boxes",
        configuration=("litemedsam",),
        input_size=256,
        preprocessing=Preprocessing(
            window=(-600.0, 1500.0),
            window_source=_MEDSAM_WINDOW,
            fit="longest-side",
            normalisation="min-max",
        ),
        prompts=f"one box a slice; {_BOXES_ONLY}",
        parameters=9_791_300,
        licence="Apache-2.0",
        commercial="yes",
        training_data=f"distilled from MedSAM: {_MEDSAM_DATA}",
        leakage=_PUBLIC_LUNG,
        citation=f"{_MEDSAM_CITATION}; its repository, branch LiteMedSAM",
        package="timm",
        notes=(
            "its image encoder is a modified TinyViT (1x1 stride-1 patch embedding, third "
            "downsampling without stride), built here from timm's; min-max of the slice before "
            "padding, no mean and deviation"
        ),
        files=(
            PublishedFile(
                variant="published",
                filename="lite_medsam.pth",
                architecture=("litemedsam",),
                pages=(
                    "https://drive.google.com/file/d/18Zed-TUTsmr2zc5CHUWd5Tu13nb6vq6z/view",
                    "https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM",
                ),
                note="about 38 MB; Google Drive only; the link is third-party",
            ),
        ),
    ),
    CheckpointCard(
        name="sam-vit-b",
        family="sam",
        summary="the first SAM, ViT-B; natural images; boxes and clicks",
        configuration=("vit_b",),
        input_size=1024,
        preprocessing=_SAM_SLICES,
        prompts="boxes, clicks and masks",
        parameters=93_735_472,
        licence="Apache-2.0",
        commercial="yes",
        training_data="SA-1B: 11 million photographs, 1.1 billion masks",
        leakage="none: the publication names photographs only",
        citation=_SAM_CITATION,
        package="segment_anything",
        files=(
            PublishedFile(
                variant="published",
                filename="sam_vit_b_01ec64.pth",
                architecture=("vit_b",),
                addresses=("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",),
                pages=("https://github.com/facebookresearch/segment-anything",),
                checks=(
                    CheckValue("md5", "01ec64d29a2fca3f0661936605ae66f8"),
                    CheckValue(
                        "sha256", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
                    ),
                ),
                size=375_042_383,
                note="check values and size are third-party; the file name carries the md5's start",
            ),
        ),
    ),
    CheckpointCard(
        name="medicosam",
        family="sam",
        summary="SAM ViT-B trained on medical images with boxes, clicks and masks",
        configuration=("vit_b",),
        input_size=1024,
        preprocessing=_SAM_SLICES,
        prompts="boxes, clicks and masks, with corrections",
        parameters=93_735_472,
        licence="unstated",
        commercial="unstated",
        licence_note="see its repository; no licence of the weights is known here",
        training_data="a large set of publicly available medical images (its publication)",
        leakage=_PUBLIC_LUNG,
        citation=(
            "Archit, Freckmann and Pape, MedicoSAM, IEEE Trans Med Imaging (2025), "
            "doi:10.1109/TMI.2025.3644811, arXiv:2501.11734"
        ),
        package="segment_anything",
        files=(
            PublishedFile(
                variant="published",
                filename="vit_b_medicosam.pt",
                architecture=("vit_b",),
                addresses=("https://owncloud.gwdg.de/index.php/s/f5Ol4FrjPQWfjUF/download",),
                pages=(
                    "https://owncloud.gwdg.de/index.php/s/f5Ol4FrjPQWfjUF",
                    "https://github.com/computational-cell-analytics/medico-sam",
                ),
                checks=(CheckValue("xxh128", "40169f1e3c03a4b67bff58249c176d92"),),
                note="the check value is micro-sam's, by the same group; it needs xxhash",
            ),
        ),
    ),
)

_LUNGMASK_PAGE = "https://github.com/JoHof/lungmask"
_LUNGMASK_FILES = f"{_LUNGMASK_PAGE}/releases/download/v0.0"

LUNGMASK_CARDS = (
    CheckpointCard(
        name="lungmask",
        family="lungmask",
        summary="U-Net for left and right lung (R231), or for lobes (LTRCLobes); no prompts",
        configuration=("R231",),
        input_size=256,
        preprocessing=None,
        prompts="none; it is automatic",
        parameters=31_054_275,
        licence="Apache-2.0",
        commercial="unstated",
        licence_note="Apache-2.0 is the package's licence; none is stated for the weights",
        training_data=(
            "R231: 231 cases from clinical routine; LTRCLobes: a part of the LTRC set; "
            "R231CovidWeb: further COVID-19 images"
        ),
        leakage="NSCLC-Radiomics and MSD Task06: not stated",
        citation=(
            "Hofmanninger et al., Automatic lung segmentation in routine imaging is primarily a "
            "data diversity problem, Eur Radiol Exp 4, 50 (2020)"
        ),
        package="lungmask",
        notes="the package prepares slices itself; it wants HU, and its labels are 1 right, 2 left",
        files=(
            PublishedFile(
                variant="R231",
                filename="unet_r231-d5d2fc3d.pth",
                architecture=("lungmask-3",),
                addresses=(f"{_LUNGMASK_FILES}/unet_r231-d5d2fc3d.pth",),
                pages=(_LUNGMASK_PAGE,),
                checks=(
                    CheckValue(
                        "sha256", "d5d2fc3df432115933491f115b283e94d1f5c841c0e82f6e7bd2d65d3ccde69f"
                    ),
                ),
                size=124_340_403,
                note="check value and size are third-party; the file name carries its start",
            ),
            PublishedFile(
                variant="LTRCLobes",
                filename="unet_ltrclobes-3a07043d.pth",
                architecture=("lungmask-6",),
                addresses=(f"{_LUNGMASK_FILES}/unet_ltrclobes-3a07043d.pth",),
                pages=(_LUNGMASK_PAGE,),
                checks=(CheckValue("sha256", "3a07043d"),),
                note="five lobes; of the check value only the start in the file name is known",
            ),
            PublishedFile(
                variant="R231CovidWeb",
                filename="unet_r231covid-0de78a7e.pth",
                architecture=("lungmask-3",),
                addresses=(f"{_LUNGMASK_FILES}/unet_r231covid-0de78a7e.pth",),
                pages=(_LUNGMASK_PAGE,),
                checks=(CheckValue("sha256", "0de78a7e"),),
                note="of the check value only the start in the file name is known",
            ),
        ),
    ),
)
