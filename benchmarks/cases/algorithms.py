"""Invalid algorithms, graphs and local optimizers on a command line, and what doesn't go with them.

So with the rules and attacks that need a graph, a server's own data or a memory of the workers.
"""

from collections.abc import Iterator

from benchmarks.cases._case import Command

_PRIVATE = "dp_fedavg:local_steps=1,clip=1,noise_multiplier=1"
_STATEFUL = "byzantine_sgd:gradient_bound=1,product_threshold=1,sum_threshold=1"

ALGORITHMS: tuple[tuple[str, str], ...] = (
    # Names and settings as they are written.
    ("scafold", "unknown algorithm 'scafold': did you mean 'scaffold'?"),
    ("SCAFFOLD", "unknown algorithm 'SCAFFOLD'"),
    ("fedavg+scaffold", "unknown algorithm 'fedavg+scaffold'"),
    (":", "unknown algorithm ''"),
    ("scaffold", "algorithm scaffold needs a value for local_steps"),
    ("scaffold:", "algorithm scaffold takes local_steps"),
    ("scaffold:local_steps", "a setting is written local_steps=VALUE"),
    ("scaffold:local_steps=0", "local_steps must be at least 1, got 0"),
    ("scaffold:local_steps=x", "local_steps must be an integer, got 'x'"),
    ("scaffold:local_steps=2,local_steps=3", "a setting is there twice"),
    ("scaffold:local_steps=2,option=III", "option must be"),
    ("scaffold:local_steps=2,local_lr=1", "local_lr is given by --local-lr"),
    ("scaffold:local_steps=2,rule=mean", "rule is given by --rule"),
    ("scaffold:local_steps=2,key=1", "key is given by --seed"),
    ("fedprox:local_steps=2", "algorithm fedprox needs a value for mu"),
    ("fedprox:local_steps=2,mu=-1", "mu must be a finite number"),
    ("fedprox:local_steps=2,mu=nan", "mu must be a real number, got 'nan'"),
    ("feddyn:local_steps=2,alpha=0", "alpha must be a finite number above 0, got 0"),
    ("mime:local_steps=2,beta=1", "beta must be below 1, got 1"),
    ("z_sign_fedavg:local_steps=2,sigma=-1", "sigma must be a finite number"),
    ("distributed_lion:zero=minus", "zero must be one of zero, plus; got 'minus'"),
    ("distributed_lion:average=maybe", "average must be true or false, got 'maybe'"),
    ("sign_fv:num_workers=3", "num_workers is given by --workers"),
    ("marina:probability=2 --compress qsgd", "probability must be at most 1, got 2"),
    ("dasha:momentum=0 --compress qsgd", "momentum must be a finite number above 0, got 0"),
    ("diana:alpha=1", "--algorithm diana:alpha=1 compresses: give it --compress"),
    ("fednova:local_steps=1/2", "local_steps has 2 values for 10 workers"),
    ("fednova:local_steps=1//2", "local_steps has 3 values for 10 workers"),
    ("delayed_sgd:delays=-1", "delays must be at least 0, got -1"),
    ("delayed_sgd:delays=0/1", "delays has 2 values for 10 workers"),
    ("math:sqrt", "--algorithm math:sqrt makes"),
    ("math:no_such", "no_such"),
    ("no_such_module:make", "no_such_module"),
    ("./nowhere.py:make", "nowhere.py"),
    # What doesn't go together.
    ("scaffold:local_steps=2 --local-steps 2", "--local-steps 2 goes only with gradients"),
    ("scaffold:local_steps=2 --server adam", "--server adam goes only with gradients"),
    ("scaffold:local_steps=2 --local-optimizer adam", "only with --algorithm fedavg, diloco"),
    ("fedavg:local_steps=2 --local-optimizer adm", "unknown local optimizer 'adm'"),
    ("fedavg:local_steps=2 --local-optimizer adam:b1=2", "b1 must be below 1, got 2"),
    ("fedavg:local_steps=2 --local-optimizer adam:lr=1", "local optimizer adam takes"),
    (
        "fedavg:local_steps=2 --local-optimizer adam:learning_rate=1",
        "learning_rate is given by --local-lr",
    ),
    ("fedavg:local_steps=2 --local-optimizer adam:eps=x", "eps must be a real number, got 'x'"),
    ("fedavg:local_steps=2 --local-optimizer adam:mu_dtype=x", "data type 'x' not understood"),
    ("diloco:local_steps=2 --local-optimizer sgd:nesterov=1", "nesterov must be true or false"),
    ("diloco:local_steps=2 --local-optimizer sgd:momentum=1", "momentum must be below 1, got 1"),
    ("signum --rule krum", "--rule krum goes only with gradients"),
    ("signum --mix nnm", "--mix nnm stands before a rule, and --algorithm signum has none"),
    ("signum --attack optimal_alie", "--attack optimal_alie is on rules"),
    ("storm:momentum=1 --rule fltrust", "--rule fltrust goes only with gradients"),
    ("ef21", "--algorithm ef21 compresses: give it --compress"),
    ("ef21 --compress sign --error-feedback yes", "--error-feedback yes goes only with"),
    ("storm:momentum=0.5 --rule noisy_sign --b theory", "--b theory goes only with"),
    # Graphs.
    ("signum --topology ring", "--topology ring goes only with --algorithm d_psgd"),
    ("d_psgd --topology rng", "unknown topology 'rng': did you mean 'ring'?"),
    ("d_psgd --topology ring:num_nodes=3", "num_nodes is given by --workers"),
    ("d_psgd --topology torus", "topology torus needs a value for rows"),
    ("d_psgd --topology torus:rows=0,columns=10", "rows must be at least 1, got 0"),
    ("d_psgd --topology torus:rows=2,columns=2", "has 4 nodes, and there are 10 workers"),
    ("d_psgd --topology erdos_renyi:probability=2,seed=0", "probability must be"),
    ("d_psgd --topology erdos_renyi:probability=0.1", "erdos_renyi needs a value for seed"),
    ("d_psgd --topology math:sqrt", "--topology math:sqrt: a graph has adjacency()"),
    ("d_psgd --topology=", "unknown topology ''"),
    ("d_psgd --participation 3", "--participation 3 is for a server: without one all"),
    ("d_psgd --compress sign", "--compress sign doesn't go with --algorithm d_psgd"),
    ("d_psgd --attack dissensus+ipm", "--attack dissensus is on what neighbours tell"),
    ("signum --attack dissensus", "--attack dissensus is on what neighbours tell"),
    ("d_psgd --attack dissensus:epsilon=-1", "epsilon must be a finite number"),
    ("d_psgd --attack dissensus:num_byzantine=1", "num_byzantine is given by --byzantine"),
    ("d_psgd --attack disensus", "unknown attack 'disensus': did you mean 'dissensus'?"),
    ("d_psgd --attack dissensus --byzantine 10", "leaves no honest one of the 10 workers"),
    ("clipped_gossip", "algorithm clipped_gossip needs a value for tau"),
    ("clipped_gossip:tau=0", "tau must be a finite number above 0, got 0"),
    ("clipped_gossip:tau=none", "tau=None needs to know who is Byzantine"),
    (
        "choco_sgd:consensus_step=1 --compress sign --attack ipm",
        "--attack ipm doesn't go with --algorithm choco_sgd:consensus_step=1",
    ),
    # Privacy.
    ("dp_fedavg:local_steps=1,clip=1", "needs a value for noise_multiplier"),
    ("dp_fedavg:local_steps=1,clip=0,noise_multiplier=1", "clip must be a finite number above 0"),
    ("dp_fedavg:local_steps=1,clip=1,noise_multiplier=-1", "noise_multiplier must be a finite"),
    ("signum --delta 1e-5", "--delta 1e-05 goes only with --algorithm dp_fedavg"),
    (f"{_PRIVATE} --delta 0", "argument --delta: '0' is not a finite number above 0"),
    (f"{_PRIVATE} --delta 1", "argument --delta: '1' is not a finite number above 0"),
    (f"{_PRIVATE} --delta -1e-5", "argument --delta: '-1e-5' is not a finite number above 0"),
    (f"{_PRIVATE} --delta nan", "argument --delta: 'nan' is not a finite number above 0"),
    (f"{_PRIVATE} --delta auto", "argument --delta: 'auto' is not a finite number above 0"),
)
"""An algorithm with flags, and the message."""

PROTOCOLS: tuple[tuple[str, str], ...] = (
    ("--topology ring", "--topology ring goes only with --algorithm d_psgd"),
    ("--delta 1e-5", "--delta 1e-05 goes only with --algorithm dp_fedavg"),
    ("--local-optimizer adam", "--local-optimizer adam goes only with --algorithm fedavg, diloco"),
    ("--attack dissensus", "--attack dissensus is on what neighbours tell"),
    ("--attack dissensus+ipm", "--attack dissensus is on what neighbours tell"),
    ("--attack optimal_turn:towards=left", "towards must be one of spread, std, sign"),
    ("--attack optimal_turn:num_points=0", "num_points must be at least 3, got 0"),
    ("--attack balanced_flip:tau=1", "attack balanced_flip takes no settings, got 'tau'"),
    ("--attack min_max:direction=up", "direction must be one of std, unit, sign; got 'up'"),
    ("--attack fang:factor=0", "factor must be a finite number"),
    ("--attack gaussian:scale=-1", "scale must be a finite number"),
    ("--attack model_replacement:scale=nan", "scale must be a real number, got 'nan'"),
    ("--attack label_flip:num_classes=3", "num_classes"),
    ("--rule fltrust:examples=0", "examples must be at least 1, got 0"),
    ("--rule fltrust:examples=x", "examples must be an integer, got 'x'"),
    ("--rule fltrust:server_gradient=1", "server_gradient"),
    ("--rule fltrust:examples=1443", "1443"),
    ("--rule fltrust --attack optimal_alie", "--attack optimal_alie is on rules without"),
    ("--rule centered_clipping_from_last", "needs a value for tau"),
    ("--rule centered_clipping_from_last:tau=0", "tau must be a finite number above 0, got 0"),
    ("--rule caf --declared-byzantine 5", "caf(num_byzantine=5) needs 2f < n"),
    ("--rule smea --declared-byzantine 5", "smea(num_byzantine=5) needs 2f < n"),
    ("--rule mda:num_byzantine=1", "num_byzantine is given by --declared-byzantine"),
    ("--rule clipped_clustering:tau=1", "rule clipped_clustering takes no settings, got 'tau'"),
    ("--rule signguard:fraction=0", "fraction must be a finite number above 0, got 0"),
    (f"--rule {_STATEFUL} --participation 5", "remembers the workers: all must take part"),
    (f"--rule {_STATEFUL},num_workers=3", "num_workers"),
)
"""Flags of runs of gradients, and the message."""


def cases() -> Iterator[Command]:
    """Yield the mistakes of both tables."""
    early = ("--dataset", "digits", "--model", "logistic")
    for line, message in ALGORITHMS:
        yield Command("run", (*early, "--algorithm", *line.split()), message)
    for line, message in PROTOCOLS:
        rule = () if "--rule" in line else ("--rule", "mean")
        yield Command("run", (*early, *rule, *line.split()), message)
