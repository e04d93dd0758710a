"""tools/diagnose.py from its command line."""

import json

from processes import TOOLS, run_tool

TOOL = TOOLS / 'diagnose.py'


def write(folder, *records):
    data = folder / '20260101_000000' / 'vis_data'
    data.mkdir(parents=True)
    (data / 'scalars.json').write_text(''.join(json.dumps(record) + '\n' for record in records))


def test_findings_and_the_exit_code(tmp_path):
    write(tmp_path / 'semi', {'student/mIoU': 49.0, 'teacher/mIoU': 40.0, 'step': 20})
    write(tmp_path / 'supervised', {'mIoU': 48.0, 'step': 20})
    result = run_tool(TOOL, 'semi', '--baseline', 'supervised', cwd=tmp_path)
    assert result.code == 1
    assert 'The teacher is behind the student.\n' in result.output
    assert '  Seen: At iteration 20 the teacher has mIoU 40.00, the student 49.00.' in result.output
    assert 'See docs/troubleshooting.md#the-teacher-is-behind-the-student' in result.output
    assert 'gain' not in result.output
    healthy = run_tool(TOOL, 'supervised', cwd=tmp_path)
    assert (healthy.code, healthy.last_line) == (
        0,
        'supervised shows none of what docs/troubleshooting.md lists.',
    )
    nothing = run_tool(TOOL, 'elsewhere', cwd=tmp_path)
    assert nothing.code == 1
    assert nothing.last_line.startswith('error: elsewhere has no record in */vis_data/scalars.json')
