"""The model's own tokenizer: any text makes the round trip; control tokens only where they are asked for."""

import inspect

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcrdt.engine.base import Engine
from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.engine.llama.tokenizer import LlamaTokenizer
from llmcrdt.exceptions import EngineError
from llmcrdt.tokenizer import Tokenizer

# A space is written as U+2581 in this kind of vocabulary, so that character itself comes back as a space.
texts = st.text(max_size=60).filter(lambda text: "\u2581" not in text)
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def tokenizer(lab):
    return lab.engine().tokenizer


@shared
@given(text=texts | st.sampled_from(["<|im_start|>", "a\0b", "  two  spaces ", "<|im_end|>\n", "\U0001f600"]))
def test_text_survives(tokenizer, text):
    ids = tokenizer.encode(text, special=False)
    assert tokenizer.decode(ids).decode() == text
    assert not set(ids) & set(tokenizer.special.values()), "a user's words never become control tokens"


@shared
@given(a=texts, b=texts)
def test_a_control_token_separates(tokenizer, a, b):
    """Ids before and after it do not depend on what is on its other side."""
    joined = tokenizer.encode(f"{a}<|im_end|>{b}", special=True)
    parts = tokenizer.encode(a, special=True) + tokenizer.encode("<|im_end|>", special=True)
    assert joined == parts + tokenizer.encode(b, special=True)


def test_control_tokens(tokenizer):
    assert tokenizer.special["<|im_start|>"] == tokenizer.encode("<|im_start|>", special=True)[0]
    ids = tokenizer.encode("<|im_start|>user\nhi<|im_end|>", special=True)
    assert tokenizer.decode(ids) == b"user\nhi", "control tokens are printed as nothing"
    assert tokenizer.token_text(ids[0]) == "<|im_start|>"
    assert tokenizer.is_end(ids[-1])
    assert not tokenizer.is_end(ids[1])
    assert (tokenizer.bos, tokenizer.eos, tokenizer.add_bos) == ("<s>", "<|im_end|>", False)
    assert "add_generation_prompt" in tokenizer.chat_template


def test_every_token_has_text_and_bytes(tokenizer):
    for token in range(tokenizer.n_vocab):
        assert isinstance(tokenizer.token_text(token), str)
        assert isinstance(tokenizer.decode([token]), bytes)


def test_bytes_of_a_character_cut_in_two(tokenizer):
    ids = tokenizer.encode("é", special=False)
    assert [tokenizer.decode([token]) for token in ids] == [b"\xc3", b"\xa9"]


def test_long_text(tokenizer):
    text = "the tale of a user " * 5000
    assert tokenizer.decode(tokenizer.encode(text, special=False)).decode() == text


def test_what_is_not_text_or_a_token(tokenizer):
    with pytest.raises(EngineError, match="surrogate"):
        tokenizer.encode("\ud800", special=False)
    for token in (-1, tokenizer.n_vocab, 1 << 40):
        with pytest.raises(EngineError, match="not a token"):
            tokenizer.decode([token])


def test_a_model_without_a_template(lab):
    assert lab.engine(lab.model(chat_template="")).tokenizer.chat_template == ""


def test_the_name_is_of_the_vocabulary_not_of_the_weights(lab):
    hashes = {lab.engine(lab.model("llama", quant)).tokenizer.hash for quant in ("F32", "Q8_0")}
    assert len(hashes) == 1
    assert lab.engine(lab.model(chat_template="x")).tokenizer.hash not in hashes


@pytest.mark.parametrize(
    ("promised", "kept"),
    [(Engine, LlamaEngine), (Tokenizer, LlamaTokenizer)],
)
def test_type_checkers_see_that_the_protocols_are_kept(promised, kept):
    """A property is kept by a property: some checkers take no other descriptor for one."""
    names = [name for name, member in vars(promised).items() if isinstance(member, property)]
    assert names
    assert [name for name in names if not isinstance(inspect.getattr_static(kept, name), property)] == []


def test_special_tokens_are_looked_up_once(tokenizer):
    assert tokenizer.special is tokenizer.special
