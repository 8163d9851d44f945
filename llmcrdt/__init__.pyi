"""What ``llmcrdt`` offers, for type checkers and editors."""

from . import exceptions as exceptions
from .document.blob import Blob as Blob
from .document.conversation import Change as Change
from .document.conversation import Conversation as Conversation
from .document.entry import (
    Config as Config,
)
from .document.entry import (
    Entry as Entry,
)
from .document.entry import (
    Frame as Frame,
)
from .document.entry import (
    HiddenField as HiddenField,
)
from .document.entry import (
    Part as Part,
)
from .document.entry import (
    Reasoning as Reasoning,
)
from .document.entry import (
    Text as Text,
)
from .document.entry import (
    ToolCall as ToolCall,
)
from .document.entry import (
    ToolResult as ToolResult,
)
from .document.entry import (
    Unknown as Unknown,
)
from .document.presence import Present as Present
from .document.stream import Stream as Stream
from .document.transcript import Elsewhere as Elsewhere
from .document.transcript import Transcript as Transcript
from .document.verify import Problem as Problem
from .engine.engine import Engine as Engine
from .engine.engine import Reuse as Reuse
from .engine.engine import Sampling as Sampling
from .engine.llama_cpp import LlamaEngine as LlamaEngine
from .exceptions import LLMCRDTError as LLMCRDTError
from .generation import (
    Generation as Generation,
)
from .generation import (
    Plan as Plan,
)
from .generation import (
    generate as generate,
)
from .generation import (
    plan as plan,
)
from .pinning import pin as pin
from .pinning import unpin as unpin
from .repo import Hit as Hit
from .repo import Listing as Listing
from .repo import Repo as Repo
from .repo import open as open
from .sync.client import Link as Link
from .sync.progress import Progress as Progress
from .warming import Warming as Warming
from .warming import warm as warm
from .why import Why as Why

__version__: str
