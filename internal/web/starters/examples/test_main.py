from main import respond


def test_the_front_page_greets():
    assert respond("/") == (200, {"message": "It works"})


def test_unknown_paths_are_not_found():
    assert respond("/nothing")[0] == 404
