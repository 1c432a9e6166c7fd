"""Studies: runs, sweeps and reports, by the command `medjax` and in Python.

from medjax import lab

result = lab.run({"rule": "noisy_sign", "workers": 20, "steps": 100})
print(result.table.to_pandas())
"""

from medjax.lab.data import Dataset as Dataset
from medjax.lab.study import Results as Results
from medjax.lab.study import run as run
from medjax.lab.study import sweep as sweep
