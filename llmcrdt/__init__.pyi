"""The names that ``llmcrdt`` offers, for type checkers and editors."""

from . import exceptions as exceptions
from . import providers as providers
from .document.ask import Ask as Ask
from .document.asks import AskStatus as AskStatus
from .document.binding import FieldReport as FieldReport
from .document.binding import Target as Target
from .document.blob import Blob as Blob
from .document.conversation import Conversation as Conversation
from .document.deltas import AnswerEnded as AnswerEnded
from .document.deltas import AnswerFailed as AnswerFailed
from .document.deltas import CallArguments as CallArguments
from .document.deltas import CallBegun as CallBegun
from .document.deltas import CallEnded as CallEnded
from .document.deltas import Delta as Delta
from .document.deltas import ReasoningDelta as ReasoningDelta
from .document.deltas import TextDelta as TextDelta
from .document.deltas import UsageDelta as UsageDelta
from .document.entry import Config as Config
from .document.entry import Entry as Entry
from .document.entry import HiddenField as HiddenField
from .document.entry import Part as Part
from .document.entry import Reasoning as Reasoning
from .document.entry import Text as Text
from .document.entry import ToolCall as ToolCall
from .document.entry import ToolResult as ToolResult
from .document.entry import Unknown as Unknown
from .document.erasure import Erased as Erased
from .document.erasure import Held as Held
from .document.fork_adopt import Adopted as Adopted
from .document.frame import Frame as Frame
from .document.observers import Change as Change
from .document.presence import Present as Present
from .document.request import Request as Request
from .document.stream import Stream as Stream
from .document.streamed_response import StreamedResponse as StreamedResponse
from .document.transcript import Elsewhere as Elsewhere
from .document.transcript import Transcript as Transcript
from .document.verify import Problem as Problem
from .engine.base import Engine as Engine
from .engine.base import Reuse as Reuse
from .engine.base import Sampling as Sampling
from .engine.llama.engine import LlamaEngine as LlamaEngine
from .exceptions import LLMCRDTError as LLMCRDTError
from .generation.cache_miss import CacheMiss as CacheMiss
from .generation.events import Ended as Ended
from .generation.events import GenerationEvent as GenerationEvent
from .generation.events import GenerationStats as GenerationStats
from .generation.events import Usage as Usage
from .generation.generate import generate as generate
from .generation.generation import Events as Events
from .generation.generation import Generation as Generation
from .generation.options import GenerationOptions as GenerationOptions
from .generation.pinning import pin as pin
from .generation.pinning import unpin as unpin
from .generation.plan import Plan as Plan
from .generation.plan import plan as plan
from .generation.prefetch import Prefetch as Prefetch
from .generation.prefetch import prefetch as prefetch
from .generation.provider_plan import ProviderPlan as ProviderPlan
from .observation import Observation as Observation
from .repo.importer import Imported as Imported
from .repo.importer import ImportProgress as ImportProgress
from .repo.importer import NotImported as NotImported
from .repo.importer import import_files as import_files
from .repo.library_changes import LibraryChange as LibraryChange
from .repo.library_changes import Listing as Listing
from .repo.repo import Hit as Hit
from .repo.repo import Hits as Hits
from .repo.repo import Repo as Repo
from .repo.repo import open as open
from .sync.link import Link as Link
from .sync.progress import LinkStatus as LinkStatus
from .sync.progress import Progress as Progress

__version__: str

# Older names that go on working.
Warming = Prefetch
Why = CacheMiss
warm = prefetch
