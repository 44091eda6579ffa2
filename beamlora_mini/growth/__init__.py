"""Growing whole networks without forgetting: Net2Net, bert2BERT, HyperCloning."""

from .bert2bert import bert2bert
from .hypercloning import hyperclone
from .net2net import net2deeper, net2wider

__all__ = ["bert2bert", "hyperclone", "net2deeper", "net2wider"]
