"""Cards of the models of SAM 2's build: SAM 2.1 and the two that are called MedSAM 2.

Facts marked "third-party" come from others' manifests and wait for the first real download.
Numbers of parameters were counted on the stock networks.
"""

from napari_lungfm.models.cards import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CheckpointCard,
    CheckValue,
    Preprocessing,
    PublishedFile,
)

_SAM2_CITATION = "Ravi et al., SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714"
_SAM2_FILES = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
_MA_REPOSITORY = "https://huggingface.co/wanglab/MedSAM2"
_ZHU_REPOSITORY = "https://huggingface.co/jiayuanz3/MedSAM2_pretrain"


def _imagenet(window: tuple[float, float] | None, source: str) -> Preprocessing:
    return Preprocessing(
        window=window,
        window_source=source,
        fit="stretch",
        normalisation="mean-std",
        scale=255.0,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _ma_file(variant: str, note: str, *, check: str = "", size: int | None = None) -> PublishedFile:
    filename = f"MedSAM2_{variant}.pt"
    return PublishedFile(
        variant=variant,
        filename=filename,
        architecture=("sam2.1_hiera_t",),
        addresses=(f"{_MA_REPOSITORY}/resolve/main/{filename}",),
        pages=(_MA_REPOSITORY, "https://github.com/bowang-lab/MedSAM2"),
        checks=(CheckValue("sha256", check),) if check else (),
        size=size,
        note=note,
    )


MEDSAM2_CARDS = (
    CheckpointCard(
        name="medsam2-ma",
        family="sam2",
        summary="MedSAM2 of Ma et al.: SAM 2.1 tiny at 512 px trained on 3D medical images",
        configuration=("sam2.1_hiera_t",),
        overrides={"image_size": 512, "feat_sizes": (32, 32)},
        input_size=512,
        preprocessing=_imagenet(
            (-750.0, 1500.0),
            "a lung example of its own; the lesion's DICOM window where one is known",
        ),
        prompts="a box or a mask on one slice, correction clicks on up to two",
        parameters=38_962_498,
        licence="CC-BY-SA-4.0",
        commercial="no",
        licence_note=(
            "its model page says CC-BY-SA-4.0; the weights are said to be for research and "
            "education only (third-party), and the stricter of the two is taken; code Apache-2.0"
        ),
        training_data=(
            "over 455,000 3D image-mask pairs and 76,000 video frames; 5,000 CT lesions of it "
            "are newly annotated ones of DeepLesion, which has lung lesions"
        ),
        leakage=(
            "DeepLesion is known; NSCLC-Radiomics, MSD Task06 and LIDC-IDRI: not stated here, "
            "take scores on public lung CT as possibly seen in training"
        ),
        citation=(
            "Ma et al., MedSAM2: Segment Anything in 3D Medical Images and Videos, arXiv:2504.03600"
        ),
        package="sam2",
        notes="not Medical SAM 2 of Zhu et al., which is medsam2-zhu",
        files=(
            _ma_file(
                "latest",
                "recommended by its publisher; check value and size are third-party",
                check="c92743b99f00d078bf32a3afcc38aaa9faf1c1692dffe3eaa7a90938c1991060",
                size=156_040_129,
            ),
            _ma_file("2411", "the base model of November 2024; no check value is known"),
            _ma_file("CTLesion", "trained further on CT lesions; no check value is known"),
            _ma_file(
                "MRI_LiverLesion",
                "trained further on liver lesions in MRI; no check value is known",
            ),
            _ma_file("US_Heart", "trained further on ultrasound of the heart; no check value"),
        ),
    ),
    CheckpointCard(
        name="medsam2-zhu",
        family="sam2",
        summary="Medical SAM 2 of Zhu et al.: SAM 2.0 at 1024 px trained on medical images",
        configuration=("sam2_hiera_s", "sam2_hiera_t"),
        input_size=1024,
        preprocessing=_imagenet(None, "none in its code, which reads 8-bit pictures"),
        prompts="a box or a click on every second slice in training",
        parameters=46_043_842,
        licence="unstated",
        commercial="unstated",
        licence_note="its repository has an Apache-2.0 file and a GPL badge; weights: unstated",
        training_data="not stated for this file",
        leakage="not stated",
        citation="Zhu et al., Medical SAM 2, arXiv:2408.00874",
        package="sam2",
        notes=(
            "not MedSAM2 of Ma et al., which is medsam2-ma; accounts differ on whether the file "
            "is Hiera small or tiny, so its keys decide (46,043,842 or 38,945,986 parameters)"
        ),
        files=(
            PublishedFile(
                variant="published",
                filename="MedSAM2_pretrain.pth",
                architecture=("sam2_hiera_s", "sam2_hiera_t"),
                addresses=(f"{_ZHU_REPOSITORY}/resolve/main/MedSAM2_pretrain.pth",),
                pages=(_ZHU_REPOSITORY, "https://github.com/ImprintLab/Medical-SAM2"),
                checks=(
                    CheckValue(
                        "sha256", "059572b072eff2e41975bf85b0dcca96bc58889db60a89e9f5b1f075236735d7"
                    ),
                ),
                note="the check value is third-party",
            ),
        ),
    ),
)


def _sam21(
    name: str, letter: str, title: str, parameters: int, sha256: str, size: int
) -> CheckpointCard:
    filename = f"sam2.1_hiera_{name.replace('-', '_')}.pt"
    return CheckpointCard(
        name=f"sam2.1-{name}",
        family="sam2",
        summary=f"SAM 2.1 {title} of Meta; photographs and videos",
        configuration=(f"sam2.1_hiera_{letter}",),
        input_size=1024,
        preprocessing=_imagenet(None, "the publisher names none"),
        prompts="boxes, clicks and masks on any slice",
        parameters=parameters,
        licence="Apache-2.0",
        commercial="yes",
        training_data="photographs (SA-1B) and videos (SA-V and others)",
        leakage="none: the publication names photographs and videos only",
        citation=_SAM2_CITATION,
        package="sam2",
        files=(
            PublishedFile(
                variant="published",
                filename=filename,
                architecture=(f"sam2.1_hiera_{letter}",),
                addresses=(
                    f"{_SAM2_FILES}/{filename}",
                    f"https://huggingface.co/facebook/sam2.1-hiera-{name}/resolve/main/{filename}",
                ),
                pages=("https://github.com/facebookresearch/sam2",),
                checks=(CheckValue("sha256", sha256),),
                size=size,
                note="check value, size and second address are third-party",
            ),
        ),
    )


SAM21_CARDS = (
    _sam21(
        "tiny",
        "t",
        "Hiera tiny",
        38_962_498,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        156_008_466,
    ),
    _sam21(
        "small",
        "s",
        "Hiera small",
        46_060_354,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        184_416_285,
    ),
    _sam21(
        "base-plus",
        "b+",
        "Hiera base-plus",
        80_850_178,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        323_606_802,
    ),
    _sam21(
        "large",
        "l",
        "Hiera large",
        224_446_642,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        898_083_611,
    ),
)
