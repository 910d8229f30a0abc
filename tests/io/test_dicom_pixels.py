import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from napari_lungfm._core.exceptions import DicomError
from napari_lungfm.io import read_series


def compress_with_gdcm(folder, compressor):
    """Rewrite a series as JPEG Lossless or JPEG 2000 Lossless with the GDCM in SimpleITK."""
    syntaxes = set()
    for path in folder.glob("*.dcm"):
        original = pydicom.dcmread(path)
        image = sitk.GetImageFromArray(original.pixel_array[None])
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(path))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(image)
        written = pydicom.dcmread(path)
        assert written.file_meta.TransferSyntaxUID.is_compressed
        syntaxes.add(written.file_meta.TransferSyntaxUID.name)
        original.PixelData = written.PixelData
        original["PixelData"].is_undefined_length = True
        original.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID
        original.save_as(path)
    return syntaxes


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_pydicom_compressed_series(series, volume, edit, syntax):
    edit(series, lambda _, ds: ds.compress(syntax))
    assert pydicom.dcmread(series / "slice_0001.dcm").file_meta.TransferSyntaxUID == syntax
    back = read_series(series)
    assert back.array.dtype == np.int16
    np.testing.assert_array_equal(back.array, volume.array)


@pytest.mark.parametrize(
    ("compressor", "name"), [("JPEG", "JPEG Lossless"), ("JPEG2000", "JPEG 2000")]
)
def test_gdcm_compressed_series(series, volume, edit, compressor, name):
    (syntax,) = compress_with_gdcm(series, compressor)
    assert name in syntax
    np.testing.assert_array_equal(read_series(series).array, volume.array)
    edit(series, lambda _, ds: setattr(ds, "RescaleIntercept", "-24"))
    back = read_series(series)
    assert back.array.dtype == np.int16
    np.testing.assert_array_equal(back.array, volume.array - 24)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_uncompressed_syntaxes(series, volume, syntax):
    little = syntax != ExplicitVRBigEndian
    for path in series.glob("*.dcm"):
        original = pydicom.dcmread(path)
        dataset = pydicom.Dataset()
        dataset.update(original)
        dataset.file_meta = original.file_meta
        dataset.PixelData = original.pixel_array.astype("<i2" if little else ">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
    np.testing.assert_array_equal(read_series(series).array, volume.array)


def test_slopes_are_applied_slice_by_slice(series, volume, edit):
    def rescale(i, ds):
        ds.RescaleSlope, ds.RescaleIntercept = str(i + 1), str(-10 * i)

    edit(series, rescale)
    factor = np.arange(1, 7)[:, None, None]
    expected = volume.array * factor - 10 * (factor - 1)
    back = read_series(series)
    assert back.array.dtype == np.int16
    np.testing.assert_array_equal(back.array, expected)


def test_fractional_slopes_give_float32(series, volume, edit):
    edit(series, lambda _, ds: setattr(ds, "RescaleSlope", "0.5"))
    back = read_series(series)
    assert back.array.dtype == np.float32
    np.testing.assert_allclose(back.array, volume.array / 2)


def test_values_beyond_int16_give_float32_without_wrapping(series, volume, edit):
    edit(series, lambda i, ds: setattr(ds, "RescaleIntercept", "40000" if i == 3 else "0"))
    back = read_series(series)
    assert back.array.dtype == np.float32
    np.testing.assert_array_equal(back.array[3], volume.array[3] + 40_000.0)
    np.testing.assert_array_equal(back.array[2], volume.array[2])


def test_a_missing_rescale_is_noted(series, volume, edit):
    def remove(_, ds):
        del ds.RescaleSlope, ds.RescaleIntercept

    edit(series, remove)
    back = read_series(series)
    np.testing.assert_array_equal(back.array, volume.array)
    assert any("RescaleIntercept" in note for note in back.metadata["notes"])


@pytest.mark.parametrize("declared", [-2000, 63536])
def test_padding_becomes_air_and_only_padding(series, volume, edit, declared):
    def pad(i, ds):
        stored = np.array(ds.pixel_array)
        stored[0, 0] = -2000
        stored[0, 1] = -1999  # below air, but not the padding value
        ds.PixelData = stored.tobytes()
        ds.RescaleIntercept = "-1024"
        element = pydicom.DataElement("PixelPaddingValue", "SS" if declared < 0 else "US", declared)
        ds.add(element)

    edit(series, pad)
    back = read_series(series)
    assert (back.array[:, 0, 0] == -1024).all()
    assert (back.array[:, 0, 1] == -1999 - 1024).all()
    np.testing.assert_array_equal(back.array[:, 1:], volume.array[:, 1:] - 1024)
    assert "6 padding voxels were set to -1024 HU" in back.metadata["notes"]


def test_padding_that_is_a_possible_hu_stays(series, volume, edit):
    value = int(volume.array[0, 0, 0])
    edit(series, lambda _, ds: ds.add(pydicom.DataElement("PixelPaddingValue", "SS", value)))
    back = read_series(series)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.metadata["notes"] == []


def test_a_range_of_padding(series, volume, edit):
    def pad(_, ds):
        stored = np.array(ds.pixel_array)
        stored[0, :3] = (-2000, -1990, -1980)
        ds.PixelData = stored.tobytes()
        ds.add(pydicom.DataElement("PixelPaddingValue", "SS", -2000))
        ds.add(pydicom.DataElement("PixelPaddingRangeLimit", "SS", -1990))

    edit(series, pad)
    assert read_series(series).array[0, 0, :3].tolist() == [-1024, -1024, -1980]


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_above_those_stored_are_no_part_of_the_value(series, edit, signed):
    def twelve_bits(_, ds):
        value = 3000 if not signed else 0x0FFF  # −1 in 12 bits
        stored = np.full((17, 20), value | 0x8000, np.uint16)
        ds.PixelData = stored.tobytes()
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, signed

    edit(series, twelve_bits)
    assert (read_series(series).array == (-1 if signed else 3000)).all()


@pytest.mark.parametrize("kind", ["raw", "RLE", "JPEGLS", "JPEG", "JPEG2000"])
@pytest.mark.parametrize("lost", [20, 200])
def test_truncated_files_are_named_and_never_filled(series, edit, capfd, kind, lost):
    if kind in ("JPEG", "JPEG2000"):
        compress_with_gdcm(series, kind)
    elif kind != "raw":
        edit(series, lambda _, ds: ds.compress(RLELossless if kind == "RLE" else JPEGLSLossless))
    path = series / "slice_0002.dcm"
    path.write_bytes(path.read_bytes()[:-lost])
    capfd.readouterr()
    with pytest.raises(DicomError, match=r"slice_0002.dcm") as caught:
        read_series(series)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_a_stream_cut_within_its_fragment_is_refused(series, edit, compressor):
    compress_with_gdcm(series, compressor)

    def cut(i, ds):
        if i == 1:
            (frame,) = pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)
            ds.PixelData = encapsulate([frame[: len(frame) * 2 // 3]])
            ds["PixelData"].is_undefined_length = True

    edit(series, cut)
    with pytest.raises(DicomError, match=r"slice_0002.dcm.*truncated"):
        read_series(series)


def test_an_unknown_syntax_is_named(series, edit):
    htj2k = pydicom.uid.UID("1.2.840.10008.1.2.4.201")
    edit(series, lambda _, ds: ds.compress(RLELossless))
    edit(series, lambda _, ds: setattr(ds.file_meta, "TransferSyntaxUID", htj2k))
    with pytest.raises(DicomError, match=r"slice_0001.dcm.*High-Throughput JPEG 2000.*4\.201"):
        read_series(series)


def test_colour_is_refused(series, edit):
    def colour(_, ds):
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "RGB"

    edit(series, colour)
    with pytest.raises(DicomError, match=r"slice_0001.dcm.*colour.*3 samples.*RGB"):
        read_series(series)


def test_missing_pixels_are_refused(series, edit):
    edit(series, lambda i, ds: delattr(ds, "PixelData") if i == 5 else None)
    with pytest.raises(DicomError, match=r"slice_0006.dcm.*no pixel data"):
        read_series(series)
