from worker.token_allowance import MOST_PATIENCE_BATCHES, PATIENCE_BATCHES, TokenAllowance


def fill(allowance: TokenAllowance, batches: int) -> None:
    """As many batches as large as allowed."""
    for _ in range(batches):
        allowance.succeeded(allowance.tokens or 0)


def test_any_batch_is_allowed_until_the_memory_runs_out() -> None:
    allowance = TokenAllowance()
    assert allowance.tokens is None
    assert allowance.allows(10**9)


def test_what_follows_a_batch_that_did_not_fit_is_half_as_large() -> None:
    allowance = TokenAllowance()
    allowance.exhausted(8000)
    assert (4000, True, False) == (allowance.tokens, allowance.allows(4000), allowance.allows(4001))
    allowance.exhausted(4000)
    assert 2000 == allowance.tokens
    allowance.exhausted(9000)  # a single long pair, which no limit can hold back
    assert 2000 == allowance.tokens


def test_the_limit_rises_by_a_quarter_after_many_batches_near_it_and_ends_where_it_began() -> None:
    allowance = TokenAllowance()
    allowance.exhausted(8000)
    fill(allowance, 2 * PATIENCE_BATCHES - 1)
    assert 4000 == allowance.tokens
    fill(allowance, 1)
    assert 5000 == allowance.tokens
    fill(allowance, 3 * 2 * PATIENCE_BATCHES)
    assert allowance.tokens is None


def test_small_batches_prove_nothing() -> None:
    allowance = TokenAllowance()
    allowance.exhausted(8000)
    for _ in range(1000):
        allowance.succeeded(1999)
    assert 4000 == allowance.tokens


def test_each_time_the_memory_runs_out_the_patience_doubles_up_to_a_limit() -> None:
    allowance = TokenAllowance()
    for _ in range(20):
        allowance.exhausted(8)
    limit = allowance.tokens
    fill(allowance, MOST_PATIENCE_BATCHES - 1)
    assert limit == allowance.tokens
    fill(allowance, 1)
    assert limit != allowance.tokens
