import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import StandardScaler

from loso.corpus.load import load_corpus
from loso.inputs import Scaler, build_inputs
from loso.schema import CODEC_BLOCK_WIDTH, ENCODER_VOCAB

# Two-pass sums of up to 40 values in float64.
FLOAT64 = 1e-9

FEATURES = np.arange(6 + CODEC_BLOCK_WIDTH) < 6

matrices = hnp.arrays(
    float, st.tuples(st.integers(1, 40), st.just(20)), elements=st.floats(-1e3, 1e3, width=32)
)


@given(matrices)
def test_scaler_equals_scikit_learn_on_features_and_leaves_the_codec_block(train):
    scaler = Scaler.fit(train, FEATURES)
    theirs = StandardScaler().fit(train[:, :6])
    np.testing.assert_allclose(scaler.mean[:6], theirs.mean_, rtol=FLOAT64, atol=1e-9)
    spread = np.sqrt(theirs.var_)
    clear = (spread > 1e-6) | (spread == 0)  # between, the two floors of a tiny std differ
    np.testing.assert_allclose(scaler.std[:6][clear], theirs.scale_[clear], rtol=FLOAT64, atol=1e-9)
    np.testing.assert_array_equal(scaler.transform(train)[:, 6:], train[:, 6:])


def test_scaler_makes_a_std_under_1e_8_one():
    train = np.zeros((4, 20))
    train[:, 0] = [1.0, 1.0, 1.0, 1.0 + 1e-8]
    train[:, 1] = [0.0, 2.0, 0.0, 2.0]
    scaler = Scaler.fit(train, FEATURES)
    assert scaler.std[:3].tolist() == [1.0, 1.0, 1.0]
    assert scaler.mean[1] == 1.0


def test_codec_block_layout(make_corpus):
    path = make_corpus(encoders=["libx265", "theora"], qualities=[10, 35, 60])
    corpus = load_corpus(path)
    inputs = build_inputs(corpus)
    assert inputs.matrix.shape == (len(corpus), 6 + CODEC_BLOCK_WIDTH)
    np.testing.assert_array_equal(inputs.matrix[:, 3], corpus.rows["vif_scale2"])
    one_hot = inputs.matrix[:, 6:18]
    assert (one_hot.sum(axis=1) == 1).all()
    slots = [ENCODER_VOCAB[i] for i in one_hot.argmax(axis=1)]
    assert slots == ["unknown" if e == "theora" else e for e in corpus.rows["encoder"]]
    assert set(inputs.matrix[:, 18]) == {0.5}
    assert set(zip(corpus.rows["cq"], inputs.matrix[:, 19], strict=True)) == {
        (10, 0.0),
        (35, 0.5),
        (60, 1.0),
    }
    assert (inputs.cq_min, inputs.cq_max) == (10, 60)


def test_one_quality_has_a_neutral_crf_norm(make_corpus):
    assert set(build_inputs(load_corpus(make_corpus(qualities=[23]))).matrix[:, 19]) == {0.5}


def test_presets_are_ranked_within_their_encoder(make_corpus):
    presets = {"libx264": ["ultrafast", "placebo", None], "libvvenc": ["faster", "medium", "warp"]}
    expected = {
        "ultrafast": 0.0,
        "placebo": 1.0,
        None: 0.5,
        "faster": 0.0,
        "medium": 0.5,
        "warp": 0.5,
    }

    def give_preset(i, row):
        row["preset"] = presets[row["encoder"]][i % 3]

    path = make_corpus(encoders=["libx264", "libvvenc"], frames=1, edit=give_preset)
    corpus = load_corpus(path)
    inputs = build_inputs(corpus)
    assert inputs.matrix[:, 18].tolist() == [expected[p] for p in corpus.rows["preset"]]
    assert inputs.warnings == ("libvvenc preset 'warp' has no rank: its rows take preset_norm 0.5",)


def test_row_order_is_kept(make_corpus):
    corpus = load_corpus(make_corpus())
    inputs = build_inputs(corpus)
    np.testing.assert_array_equal(inputs.target, corpus.rows["vmaf"])
    assert inputs.matrix[:, 0] == pytest.approx(corpus.rows["adm2"].to_numpy())
