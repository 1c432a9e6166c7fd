"""What can't be of the protocol's options, said in one line."""

import pytest

from medjax.lab.commands.run import main
from medjax.lab.commands.sweep import main as sweep

QUICK = ["--dataset", "digits", "--model", "logistic"]
STATEFUL = "byzantine_sgd:gradient_bound=1,product_threshold=1,sum_threshold=1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Names and settings as they are written.
        ("--wrokers 3", "unrecognized arguments: --wrokers 3; did you mean --workers?"),
        ("--attack ailie", "unknown attack 'ailie': did you mean 'alie'? valid: sign_flip, ipm"),
        ("--compress qsdg", "unknown compressor 'qsdg': did you mean 'qsgd'?"),
        ("--server adm", "unknown server 'adm': did you mean 'adam'?"),
        ("--mix nmn", "unknown mixing 'nmn': did you mean 'nnm'?"),
        ("--mix arc+nmn", "unknown mixing 'nmn': did you mean 'nnm'?"),
        ("--attack alie+", "unknown attack 'alie+': did you mean 'alie'?"),
        ("--attack alie+ipn:tau=1", "unknown attack 'ipn': did you mean 'ipm'?"),
        ("--attack alie:taw=2", "'alie:taw=2': attack alie takes tau, got 'taw'"),
        ("--attack sign_flip:tau=2", "attack sign_flip takes no settings, got 'tau'"),
        ("--attack alie:", "'alie:': attack alie takes tau, got ''"),
        ("--attack alie:tau", "'alie:tau': a setting is written tau=VALUE"),
        ("--attack alie:tau=", "'alie:tau=': a setting is written tau=VALUE"),
        ("--attack alie:tau=x", "'alie:tau=x': tau must be a real number, got 'x'"),
        ("--attack ipm:tau=nan", "'ipm:tau=nan': tau must be a real number, got 'nan'"),
        ("--attack ipm:tau=-1", "'ipm:tau=-1': tau must be a finite number at least 0, got -1"),
        ("--attack alie:tau=3.5e38", "'alie:tau=3.5e38': tau must be at most 3.402823e+38, got 3"),
        ("--attack mimic:worker=2147483648", "worker must be below 2^31, got 2147483648"),
        ("--attack optimal_ipm:rule=mean", "'optimal_ipm:rule=mean': rule is given by --rule"),
        ("--attack backdoor", "attack backdoor needs a value for target, as in backdoor:target="),
        ("--attack nonfinite:value=1", "value must be one of nan, inf, -inf; got 1"),
        ("--rule krum:num_byzantine=1", "num_byzantine is given by --declared-byzantine"),
        ("--rule krum:num_neighbors=1.5", "num_neighbors must be an integer, got 1.5"),
        ("--rule centered_clipping", "needs a value for tau, as in centered_clipping:tau=VALUE"),
        ("--rule centered_clipping:tau=1,tau=2", "a setting is there twice"),
        ("--mix clip", "mixing clip needs a value for max_norm"),
        ("--mix clip:max_norm=0", "max_norm must be a finite number above 0, got 0"),
        ("--compress random_mask", "needs a value for fraction"),
        ("--compress random_mask:fraction=2", "fraction must be at most 1, got 2"),
        ("--compress sign:zero=minus", "zero must be one of plus, random; got 'minus'"),
        ("--server adam:b1=2", "'adam:b1=2': b1 must be below 1, got 2"),
        ("--server adam:lr=2", "server adam takes b1, b2, eps, got 'lr'"),
        ("--server momentum:momentum=0.9", "momentum is given by --momentum"),
        ("--local-steps 0", "'0' is not a whole number of at least 1"),
        ("--local-lr 0 --local-steps 2", "'0' is not a finite number above 0"),
        ("--worker-momentum 1", "'1' is not a finite number of at least 0 and below 1, nor undamp"),
        ("--worker-momentum undamped:2", "'2' is not a finite number"),
        ("--error-feedback maybe --compress sign", "unknown choice 'maybe': valid: yes, no"),
        # What goes only with something else.
        ("--byzantine 2", "--byzantine 2 goes only with --attack"),
        ("--declared-byzantine 2", "--declared-byzantine 2 goes only with --rule trimmed_mean"),
        ("--error-feedback yes", "--error-feedback yes goes only with --compress"),
        ("--local-lr 0.1", "--local-lr 0.1 goes only with --local-steps"),
        ("--momentum 0.9 --server adam", "--momentum 0.9 goes only with --server momentum"),
        ("--weights examples --rule median", "goes only with --rule mean, noisy_mean"),
        ("--similarity 0.5", "--similarity 0.5 goes only with --partition gamma_similarity"),
        ("--exponent 1", "--exponent 1.0 goes only with --partition power_law"),
        ("--weights examples --mix nnm", "--weights examples doesn't go with --mix nnm"),
        (
            "--weights examples --attack ipm+optimal_ipm",
            "--attack optimal_ipm is on rules without ",
        ),
        ("--compress qsgd --rule sign", "--compress qsgd can't precede --rule sign: a vote is one"),
        ("--compress qsgd --rule noisy_sign", "can't precede --rule noisy_sign"),
        (f"--rule {STATEFUL} --participation 5", "remembers the workers: all must take part"),
        (f"--rule {STATEFUL} --mix nnm", "--mix nnm can't precede --rule byzantine_sgd"),
        (f"--rule {STATEFUL} --attack optimal_alie", "--attack optimal_alie is on rules without m"),
        # What fits neither n nor d nor the data.
        ("--attack alie --byzantine 10", "byzantine 10 leaves no honest one of the 10 workers"),
        ("--attack alie --byzantine 9", "alie(tau=1.5) needs at least 2 honest workers"),
        ("--attack alie:tau=none --byzantine 6", "alie(tau=None) needs 2f <= n, got f = 6"),
        (
            "--attack alie:tau=none --workers 2 --byzantine 1",
            "needs n >= 3, got f = 1 and n = 2 workers",
        ),
        ("--attack mimic:worker=9", "needs honest worker 9, got only 9 honest workers"),
        ("--attack ipm --byzantine 5 --participation 5", "no honest one of the 5 workers that t"),
        ("--participation 11", "participation 11 is more than the 10 workers"),
        ("--rule krum --declared-byzantine 5", "krum(num_byzantine=5) needs 2f < n, got f = 5 and"),
        ("--rule krum --attack ipm --byzantine 5", "krum(num_byzantine=5) needs 2f < n"),
        ("--mix arc --declared-byzantine 5", "arc(num_byzantine=5) needs 2f < n, got f = 5 and n"),
        ("--rule cge --participation 4 --declared-byzantine 4", "cge(num_byzantine=4) needs f < n"),
        ("--rule multi_krum:num_selected=11", "selects 11 vectors, got only n = 10 workers"),
        ("--rule krum:num_neighbors=10", "needs 10 neighbours, n = 10 workers have 9"),
        ("--rule bulyan --declared-byzantine 2", "needs n >= 4f + 3, got f = 2 and n = 10"),
        ("--rule krum --mix bucketing:bucket_size=5", "krum(num_byzantine=1) needs 2f < n"),
        ("--rule monna:reference=10", "needs worker 10, got only n = 10 workers"),
        ("--mix bucketing:bucket_size=11", "needs at least 11 workers, got n = 10"),
        ("--compress top_k:k=651", "top_k(k=651) keeps 651 coordinates, got an update of d = 650"),
        ("--compress top_k", "top_k needs either k or a fraction, got k=None and fraction=None"),
        ("--compress rotation_quantization:bits=9", "bits must be at most 8, got 9"),
        ("--attack backdoor:target=10", "value=1) gives label 10; valid: 0 to 9"),
        ("--attack backdoor:target=1,size=9", "a trigger of 9×9 pixels needs images"),
        ("--examples-per-worker 1000", "1000 examples per worker are more than the 1"),
    ],
)
def test_mistake_gets_one_clear_line(arguments, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rule = () if "--rule" in arguments else ("--rule", "mean")
    for command in (main, sweep):
        assert message in error_of(command, *QUICK, *rule, *arguments.split())
        assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"
