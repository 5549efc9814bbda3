"""`flan`: the six tasks together, with instructions."""

from gptdynamics.tasks.boolq import BoolQ
from gptdynamics.tasks.cnn_dm import CNNDailyMail
from gptdynamics.tasks.mixture import Mixture
from gptdynamics.tasks.rte import RTE
from gptdynamics.tasks.sst2 import SST2
from gptdynamics.tasks.webnlg import WebNLG
from gptdynamics.tasks.wmt16 import WMT16

_EVALUATED = (RTE(), SST2(), BoolQ(), WebNLG(), WMT16())

# CNN/DailyMail is trained on only, as in the paper (section 4.1.1).
FLAN = Mixture("flan", (*_EVALUATED, CNNDailyMail()), _EVALUATED)
