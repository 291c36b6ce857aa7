"""What featurised training saves: epochs on features beside epochs on fields, heads trained."""

import statistics
from collections.abc import Mapping, Sequence

from experiments.benchmarks.epoch import ShortEpoch
from multigrid.config import Config
from multigrid.data.samples import Samples
from multigrid.ladder.experiment import Experiment
from multigrid.tables import si, table
from multigrid.training.callbacks import EpochRecord
from multigrid.training.finetuning import FeaturizedSamples, Finetuning, Unfreezing, featurize

NUM_ROUNDS = 5
NUM_STEPS = 8


def measure(config: Config) -> str:
    """Times short epochs on the finest level, all frozen but the heads, both ways in turn.

    Returns a table with medians over the rounds, and the largest difference between the losses.
    """
    experiment = Experiment(config)
    short = ShortEpoch(experiment, NUM_STEPS)
    samples, batch_size = short.samples, short.stage.batch_size
    names = experiment.family.blueprint(short.stage.level).state_dict()
    plan = Finetuning(unfreezings={name: Unfreezing() for name in names if ".head." not in name})
    features = featurize(short.surrogate(), samples, batch_size, experiment.precision)
    features.flops = 0.0  # those of the epochs alone are compared
    size = sum(tensor.nbytes for tensor in features.features)
    data: dict[str, Samples | FeaturizedSamples] = {"fields": samples, "features": features}
    rounds = [
        {name: short.train(train, None, plan) for name, train in data.items()}
        for _ in range(NUM_ROUNDS + 1)
    ][1:]  # the first one is slower
    return f"{short}, {si(size)}B of features, {NUM_ROUNDS} rounds\n{_report(rounds)}"


def _report(rounds: Sequence[Mapping[str, tuple[EpochRecord, float]]]) -> str:
    rows = []
    for name in rounds[0]:
        seconds = statistics.median(records[name][0].seconds for records in rounds)
        ratio = statistics.median(
            records["fields"][0].seconds / records[name][0].seconds for records in rounds
        )
        flops = rounds[0][name][1]
        faster = rounds[0]["fields"][1] / flops
        rows.append([name, f"{seconds:.3f}", f"{ratio:.1f}", si(flops), f"{faster:.1f}"])
    losses = [{name: r.train_loss for name, (r, _) in records.items()} for records in rounds]
    error = max(abs(loss / each["fields"] - 1) for each in losses for loss in each.values())
    header = ["Training on", "s/epoch", "Times faster", "FLOPs/epoch", "Times fewer"]
    return f"{table(header, rows)}\nlargest relative difference of a loss: {error:.1e}"
