"""What is wrong with a configuration is said in the words of whoever wrote it."""

import pytest

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.benchmark.shipped import find_config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seeds=0", "seeds: write a list, such as [0], not '0'"),
        ("seeds=[a]", "seeds.0: write a whole number, not 'a'"),
        ("seeds=[]", "seeds: write 1 or more in the list"),
        ("count_macs=maybe", "count_macs: write true or false, not 'maybe'"),
        ("methods.0.modle=x", "methods.0 has no key 'modle'; did you mean 'model'?"),
        ("methods.0.qqqq=1", "methods.0 has no key 'qqqq'; its keys: cohorts, fraction, label"),
        ("methods.0=3", "methods.0: write a mapping, such as {key: value}, not '3'"),
        ("metods=[]", "there is no key 'metods'; did you mean 'methods'?"),
        ("cohorts.0.n_tset=4", "cohorts.0 has no key 'n_tset'; did you mean 'n_test'?"),
        ("cohorts.0.kind=file", "cohorts.0: there is no kind 'file', only 'files', 'phantom'"),
        ("cohorts.0.n_test=-1", "cohorts.0.n_test: it must be greater than or equal to 1"),
        (
            "cohorts=[{kind: files, name: x, root: /, cases: [{name: a, imag: b}]}]",
            "cohorts.0.cases.0 has no key 'imag'; did you mean 'image'?",
        ),
    ],
)
def test_what_is_wrong(change, said):
    with pytest.raises(ConfigError) as caught:
        find_config("demo", changes=(change,))
    text = str(caught.value)
    assert said in text
    # A list in which one entry is wrong is not too short.
    assert ("1 or more" in text) == (change == "seeds=[]")
    assert not any(word in text for word in ("\n", "Input should", "Extra", "tuple"))
