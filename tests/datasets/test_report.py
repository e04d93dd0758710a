"""What a report of a check says, to the letter."""

from mmseg_semi.datasets.report import SHOWN, Report


def test_lines_name_the_first_problem_of_each_kind_and_their_number():
    report = Report(['3 images'], ['Two look alike.'])
    report.add_problem('a.png is missing.')
    report.add_problem('a.png is missing.')
    report.add_problems('masks cannot be read', ['b.png is broken.', 'c.png is broken.'])
    report.add_problems('masks cannot be read', ['d.png is broken.'])
    report.add_problems('images cannot be read', [])
    assert report.lines() == [
        '3 images',
        'warning: Two look alike.',
        'error: a.png is missing.',
        'error: 3 masks cannot be read, the first: b.png is broken.',
        '2 errors, 1 warnings.',
    ]


def test_a_list_shows_the_first_few_of_each_kind():
    report = Report(warnings=['Two look alike.'])
    report.add_problems('broken masks', [f'{i}.png is broken.' for i in range(SHOWN + 2)])
    assert report.listed('labeled') == [
        'PROBLEM: labeled: 7 broken masks:',
        *(f'  {i}.png is broken.' for i in range(5)),
        '  ... and 2 more',
        'warning: labeled: Two look alike.',
    ]
