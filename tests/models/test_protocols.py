from napari_lungfm.models.protocols import takes_cache


class Plain:
    name = "plain"

    def open(self, volume):
        return volume


class Encoding(Plain):
    def open(self, volume, *, cache=None):
        return volume, cache


def test_only_models_whose_open_has_a_place_for_it_take_a_cache() -> None:
    assert takes_cache(Encoding())
    assert not takes_cache(Plain())
