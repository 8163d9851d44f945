"""Every engine of this library against the acceptance suite."""

import pytest

from llmcrdt.engine.base import Engine
from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.exceptions import EngineError
from llmcrdt.kvcache import ChunkCache
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.engine_suite import EngineSuite
from llmcrdt.testing.models import write_model
from llmcrdt.testing.tokenizer import ByteTokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.gguf", "llama", quant="F16")


class TestMemoryEngine(EngineSuite):
    def make(self, cache: ChunkCache) -> Engine:
        return MemoryEngine(ByteTokenizer(""), cache)


class TestLlamaEngineWithSlots(EngineSuite):
    at_once = 3

    @pytest.fixture(autouse=True)
    def _on_the_model(self, model):
        self.model = model

    def make(self, cache: ChunkCache) -> Engine:
        return LlamaEngine(self.model, cache, n_threads=1, slots=3)


class TestLlamaEngine(EngineSuite):
    @pytest.fixture(autouse=True)
    def _on_the_model(self, model):
        self.model = model

    def make(self, cache: ChunkCache) -> Engine:
        return LlamaEngine(self.model, cache, n_threads=1)

    def test_it_has_no_more_slots_than_it_can(self) -> None:
        for wrong in ({"slots": 0}, {"slots": 65}, {"slots": 2, "mode": "fast"}):
            with pytest.raises(EngineError, match="slots"):
                LlamaEngine(self.model, n_threads=1, **wrong)

    def test_the_older_name_of_prefetch_stays(self) -> None:
        assert LlamaEngine.warm is LlamaEngine.prefetch
