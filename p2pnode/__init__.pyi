from p2pnode.compiled import Cores
from p2pnode.errors import (
    BusyError as BusyError,
    GenerationError as GenerationError,
    LengthError as LengthError,
    ModelError as ModelError,
    UserError as UserError,
)
from p2pnode.interfaces.python.answer import (
    AsyncRunningAnswer as AsyncRunningAnswer,
)
from p2pnode.interfaces.python.client import (
    Client as Client,
    RunningAnswer as RunningAnswer,
)
from p2pnode.interfaces.python.events import (
    Answer as Answer,
    Broken as Broken,
    Embeddings as Embeddings,
    Event as Event,
    Plan as Plan,
    Planned as Planned,
    Queued as Queued,
    Remark as Remark,
    Repaired as Repaired,
    Rest as Rest,
    Shortened as Shortened,
    Stage as Stage,
    Token as Token,
    TokenChance as TokenChance,
    ToolCall as ToolCall,
    Waiting as Waiting,
)
from p2pnode.interfaces.python.frames import (
    Frames as Frames,
    ReceivedFrame as ReceivedFrame,
)
from p2pnode.interfaces.python.node import (
    Node as Node,
)
from p2pnode.node.peer_snapshot import PeerView as PeerView
from p2pnode.node.snapshot import NodeSnapshot as NodeSnapshot
from p2pnode.wire.dtypes import (
    DType as DType,
)
from p2pnode.wire.messages import (
    Ask as Ask,
    Critique as Critique,
)
from p2pnode.wire.vframe import (
    Frame as Frame,
    Slice as Slice,
)

__version__: str
CORES: Cores
