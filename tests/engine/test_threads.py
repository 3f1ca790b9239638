from p2pnode.engine.threads import limit_blas_threads


def test_the_limit_can_be_lowered_and_raised() -> None:
    try:
        assert limit_blas_threads(2) in {0, 1, 2}
    finally:
        assert limit_blas_threads(1) in {0, 1}
