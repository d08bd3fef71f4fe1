"""What all engines do with a member whose target is standardised while it learns."""

from dataclasses import replace

import numpy as np
import pytest

from loso.engine import Member, TrainingPlan, train_members
from loso.recipe import Recipe

ENGINES = ("batched", "native", "reference")
FLOAT64 = 1e-12  # one multiplication and one addition more or less


@pytest.fixture
def plan():
    random = np.random.default_rng(3)
    inputs = random.normal(size=(90, 4))
    target = 50 + 10 * inputs[:, 0] + random.normal(size=90)
    members = []
    for fold in range(3):
        train = np.arange(7 * fold, 90, dtype=np.int32)
        own = target[train]
        members.append(
            Member(fold, fold, "", train, np.zeros(4), np.ones(4), own.mean(), own.std())
        )
    recipe = Recipe(epochs=100, hidden=16, dropout=0.0, lr=5e-3)
    return TrainingPlan(inputs, target, tuple(members), recipe)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_standardised_target_is_learnt_and_given_back_in_its_own_unit(plan, engine):
    trained = train_members(plan, engine=engine)
    for member, network, losses in zip(plan.members, trained.networks, trained.losses, strict=True):
        # The same by hand: the target standardised before, the scores turned back after.
        mean, std = member.target_mean, member.target_std
        plain = replace(member, target_mean=0.0, target_std=1.0)
        by_hand = replace(plan, target=(plan.target - mean) / std, members=(plain,))
        expected = train_members(by_hand, engine=engine)
        scores = mean + std * expected.networks[0].predict(plan.inputs)
        np.testing.assert_allclose(network.predict(plan.inputs), scores, rtol=FLOAT64)
        np.testing.assert_allclose(losses, expected.losses[0] * std**2, rtol=FLOAT64)
        assert np.sqrt(np.mean((scores - plan.target)[member.train] ** 2)) < 2


def test_without_a_scale_the_bytes_are_those_of_the_engine(plan):
    network = train_members(plan, engine="native").networks[0]
    assert network.rescaled(0.0, 1.0) is network
