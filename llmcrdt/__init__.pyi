"""What ``llmcrdt`` offers, for type checkers and editors."""

from . import exceptions as exceptions
from .repo import Listing as Listing, Repo as Repo, open as open
from .document.conversation import Change as Change, Conversation as Conversation
from .document.transcript import Elsewhere as Elsewhere, Transcript as Transcript
from .document.stream import Stream as Stream
from .document.verify import Problem as Problem
from .document.entry import (
    Config as Config,
    Entry as Entry,
    Frame as Frame,
    HiddenField as HiddenField,
    Part as Part,
    Reasoning as Reasoning,
    Text as Text,
    ToolCall as ToolCall,
    ToolResult as ToolResult,
    Unknown as Unknown,
)
from .generation import (
    Generation as Generation,
    Plan as Plan,
    generate as generate,
    plan as plan,
)
from .why import Why as Why
from .engine.engine import Engine as Engine, Reuse as Reuse, Sampling as Sampling
from .engine.llama_cpp import LlamaEngine as LlamaEngine
from .sync.client import Link as Link
from .exceptions import LLMCRDTError as LLMCRDTError

__version__: str
