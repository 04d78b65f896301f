"""The metrics of credit against numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy.stats import linregress

from lit_rl.tasks.position_credit import calibration_slope, credit_correlation, gradient_share


@pytest.fixture(params=[0, 1, 2])
def credit(request):
    """Estimated and exact advantages [N, T] and a mask that leaves different rows at every position."""
    rng = np.random.default_rng(request.param)
    exact = rng.normal(size=(50, 6)) * 10.0 ** np.arange(-3, 3)
    estimated = 0.5 * exact + rng.normal(size=exact.shape) * 10.0 ** np.arange(-3, 3) + 2
    return torch.tensor(estimated), torch.tensor(exact), torch.tensor(rng.random(exact.shape) < 0.6)


def columns(estimated, exact, mask):
    return [(x[m].numpy(), y[m].numpy()) for x, y, m in zip(estimated.T, exact.T, mask.T, strict=True)]


def test_correlation_is_numpys(credit):
    expected = [np.corrcoef(x, y)[0, 1] for x, y in columns(*credit)]
    np.testing.assert_allclose(credit_correlation(*credit), expected, rtol=1e-9)


def test_slope_is_numpys_and_scipys(credit):
    slope = calibration_slope(*credit)
    np.testing.assert_allclose(slope, [np.polyfit(x, y, 1)[0] for x, y in columns(*credit)], rtol=1e-9)
    np.testing.assert_allclose(slope, [linregress(x, y).slope for x, y in columns(*credit)], rtol=1e-9)


metrics = pytest.mark.parametrize("metric", [credit_correlation, calibration_slope])


@metrics
def test_rows_outside_the_mask_do_not_matter(credit, metric):
    estimated, exact, mask = credit
    for junk in (0.0, 1e9, torch.nan, torch.inf):
        masked = (torch.where(mask, x, junk) for x in (estimated, exact))
        assert torch.equal(metric(*masked, mask), metric(*credit))


@metrics
def test_single_precision_comes_back_double(credit, metric):
    estimated, exact, mask = credit
    single = metric(estimated.float(), exact.float(), mask)
    assert single.dtype == torch.float64
    np.testing.assert_allclose(single, metric(*credit), rtol=1e-3)


@pytest.mark.parametrize("scale", [-3.0, 1.0, 0.25])
def test_a_rescaled_estimate(credit, scale):
    _, exact, mask = credit
    estimated = scale * exact + 1
    torch.testing.assert_close(credit_correlation(estimated, exact, mask), torch.full((6,), np.sign(scale)).double())
    torch.testing.assert_close(calibration_slope(estimated, exact, mask), torch.full((6,), 1 / scale).double())


@metrics
@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_are_undefined(credit, metric, rows):
    estimated, exact, mask = credit
    mask = mask.clone()
    mask[rows:, 2] = False
    mask[:rows, 2] = True
    undefined = metric(estimated, exact, mask).isnan().tolist()
    assert undefined == [False, False, True, False, False, False]
    assert metric(estimated[:rows], exact[:rows], mask[:rows]).isnan().tolist() == [True] * 6


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_spread_is_undefined(credit, value, dtype):
    estimated, exact, mask = (credit[0].to(dtype), credit[1].to(dtype), credit[2])
    flat = torch.where(torch.arange(6) == 1, value, estimated)
    assert calibration_slope(flat, exact, mask).isnan().tolist() == [t == 1 for t in range(6)]
    for pair in ((flat, exact), (exact, flat)):
        assert credit_correlation(*pair, mask).isnan().tolist() == [t == 1 for t in range(6)]
    assert calibration_slope(exact, flat, mask)[1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_spread(credit, dtype):
    """A difference of equal values, worked out in two ways, must not pass for credit."""
    estimated, exact, mask = credit
    exact = exact.clamp(-1, 1).to(dtype)
    exact[:, 3] = 0.3 * torch.rand(50, generator=torch.Generator().manual_seed(0)) * torch.finfo(dtype).eps
    assert credit_correlation(estimated, exact, mask).isnan().tolist() == [t == 3 for t in range(6)]


@metrics
def test_a_nan_stays_at_its_position(credit, metric):
    estimated, exact, mask = credit
    broken = estimated.clone()
    broken[mask[:, 4].nonzero()[0], 4] = torch.nan
    others = torch.arange(6) != 4
    assert metric(broken, exact, mask)[4].isnan()
    assert torch.equal(metric(broken, exact, mask)[others], metric(*credit)[others])


def test_gradient_share():
    share = gradient_share(torch.tensor([[3.0, -4.0], [0.0, 0.0], [0.0, 15.0]]))
    assert share.tolist() == [0.25, 0, 0.75]
    assert gradient_share(torch.zeros(3, 2)).tolist() == [0, 0, 0]
    g = torch.randn(7, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.linalg.norm(g.numpy(), axis=1)
    np.testing.assert_allclose(gradient_share(5 * g), expected / expected.sum())
