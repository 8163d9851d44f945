"""All that can change KV state while the token ids stay the same changes the fingerprint: no false hit, one by one.

llama.cpp takes the state of other weights, adapters, rope settings and rotations without a word.
"""

import itertools
import shutil

import numpy as np
import pytest

from llmcrdt.engine.llama import opening
from llmcrdt.kvcache import NullCache
from llmcrdt.testing.models import write_adapter


def flipped(lab, model):
    """The same file with one bit of one weight changed, at the same size."""
    path = lab.folder / "flipped.gguf"
    data = bytearray(model.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    return path


def adapter(lab):
    path = lab.folder / "adapter.gguf"
    return path if path.exists() else write_adapter(path, seed=1)


def other_libraries(lab, patch):
    """llama.cpp of another build: a byte more in one of its libraries."""
    real = opening.libraries

    def changed(lib):
        first, *others = real(lib)
        copy = lab.folder / first.name
        copy.write_bytes(first.read_bytes() + b"\0")
        return [copy, *others]

    patch.setattr(opening, "libraries", changed)


def other_processor(lab, patch):
    info = opening.library().llama_print_system_info()
    patch.setattr(opening.library(), "llama_print_system_info", lambda: info + b" AVX1024 = 1")


# The change -> the model of both engines, settings of both, settings or model of the second alone, a patch for it
LLAMA, GEMMA = {"arch": "llama"}, {"arch": "gemma3", "quant": "F16"}
CHANGES = {
    "weights": {"model": lambda lab: lab.model("llama", seed=1)},
    "one bit of one weight": {"model": lambda lab: flipped(lab, lab.model("llama"))},
    "quantisation": {"model": lambda lab: lab.model("llama", "F16")},
    "adapter": {"with": lambda lab: {"lora": (adapter(lab),)}},
    "adapter's scale": {
        "both": lambda lab: {"lora": (adapter(lab),)}, "with": lambda lab: {"lora": ((adapter(lab), 0.5),)},
    },
    "K type": {"with": lambda lab: {"type_k": "q8_0"}},
    "V type": {"both": lambda lab: {"flash_attn": True}, "with": lambda lab: {"type_v": "q8_0"}},
    "flash attention": {"with": lambda lab: {"flash_attn": True}},
    "rope base": {"with": lambda lab: {"rope_freq_base": 5000.0}},
    "rope scale": {"with": lambda lab: {"rope_freq_scale": 0.5}},
    "chunk length": {"with": lambda lab: {"chunk": 128}},
    "where KV lives": {"with": lambda lab: {"offload_kqv": False}},
    "layers elsewhere": {"with": lambda lab: {"n_gpu_layers": 1}},
    "sliding window": {"base": GEMMA, "model": lambda lab: lab.model("gemma3", "F16", window=100)},
    "engine build": {"patch": other_libraries},
    "processor": {"patch": other_processor},
    "rotation": {"patch": lambda lab, patch: patch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_never_hits(lab, monkeypatch, name):
    change = {"base": LLAMA, "both": lambda lab: {}, "with": lambda lab: {}, **CHANGES[name]}
    model, both, ids = lab.model(**change["base"]), change["both"](lab), lab.tokens(300)
    with lab.engine(model, **both) as plain:
        truth = plain.logits(ids).result()
        name = plain.fingerprint
    with lab.engine(model, **both) as again:
        assert again.fingerprint == name
        assert again.plan(ids).disk == 256, "unchanged settings do"
    with monkeypatch.context() as patch:
        if "patch" in change:
            change["patch"](lab, patch)
        other = change["model"](lab) if "model" in change else model
        settings = both | change["with"](lab)
        changed = lab.engine(other, **settings)
        assert changed.fingerprint != name
        assert changed.plan(ids).reused == 0
        said = changed.logits(ids).result()
        assert np.array_equal(said, lab.engine(other, NullCache(), **settings).logits(ids).result())
        changed.close()
    with lab.engine(model, **both) as back:  # what the other one stored is not taken for this one's
        assert back.plan(ids).disk == 256
        assert np.array_equal(back.logits(ids).result(), truth)


def test_a_setting_is_not_taken_for_another(lab):
    """Pairwise: two settings that each change one thing have two names."""
    ways = [change["with"](lab) for change in CHANGES.values() if "with" in change and "both" not in change]
    names = [lab.engine(cache=NullCache(), **settings).fingerprint for settings in ways]
    assert all(a != b for a, b in itertools.combinations(names, 2))


def test_a_file_changed_in_place_is_noticed_when_it_is_opened_again(lab):
    """Kept at its path and size."""
    path, ids = lab.folder / "model.gguf", lab.tokens(300)
    shutil.copy(lab.model(), path)
    with lab.engine(path) as first:
        first.logits(ids).result()
    path.write_bytes(flipped(lab, path).read_bytes())
    assert lab.engine(path).plan(ids).reused == 0
    assert lab.engine(lab.model()).plan(ids).disk == 256, "the same bytes elsewhere do"
