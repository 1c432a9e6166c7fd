"""Kernels, bytes and operations of compiled programs written by hand."""

import pytest

from benchmarks import _launches
from benchmarks._launches import Kernel, launches


def program(entry, *others):
    """Return the text of a program, given the lines of its computations."""
    texts = [f"%{name} (x: f32[]) -> f32[] {{\n{lines}\n}}\n" for name, lines in others]
    return "\n".join(["HloModule m", *texts, f"ENTRY %main (x: f32[]) -> f32[] {{\n{entry}\n}}"])


def found(text, branch=_launches.least):
    return {kernel.name: kernel for kernel in launches(text, branch)}


def test_kernel_reads_its_operands_and_writes_its_result():
    kernels = found(
        program("""
  %x = f32[100,10]{1,0} parameter(0)
  %y = bf16[100,10]{1,0} convert(%x)
  %view = bf16[1000]{0} bitcast(%y)
  %z = (bf16[1000]{0}, /*index=1*/pred[1000]{0}) custom-call(%view), custom_call_target="mine"
  %first = bf16[1000]{0} get-tuple-element(%z), index=0
  ROOT %out = (bf16[1000]{0}) tuple(%first)""")
    )
    # 1000 numbers of 4 bytes are read, and written as 2; then 2 are read, and 2 and 1 are written.
    assert kernels == {
        "y": Kernel("y", "convert", 1, 6000.0, operations=1000.0),
        "z": Kernel("z", "mine", 1, 5000.0, operations=1000.0),
    }


SLICES = (
    "fused",
    """
  %p = f32[100,10]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %whole = f32[10]{0} parameter(2)
  %zero = s32[] constant(0)
  %view = f32[100,1,10]{2,1,0} bitcast(%p)
  %row = f32[1,1,10]{2,1,0} dynamic-slice(%view, %i, %zero, %zero), dynamic_slice_sizes={1,1,10}
  %flat = f32[10]{0} bitcast(%row)
  ROOT %sum = f32[10]{0} add(%flat, %whole)""",
)


def test_fusion_reads_the_slices_that_it_uses():
    kernels = found(
        program(
            """
  %x = f32[100,10]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %y = f32[10]{0} parameter(2)
  ROOT %fusion = f32[10]{0} fusion(%x, %i, %y), kind=kLoop, calls=%fused""",
            SLICES,
        )
    )
    # One row of 40 bytes out of a hundred, the index, the other operand, and the result; 10 sums.
    assert kernels["fusion"] == Kernel("fusion", "fusion", 1, 40 + 4 + 40 + 40, operations=10.0)


def test_fusion_within_a_fusion_reads_no_more():
    outer = """
  %p = f32[100,10]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %y = f32[10]{0} parameter(2)
  ROOT %inner = f32[10]{0} fusion(%p, %i, %y), kind=kLoop, calls=%fused"""
    kernels = found(
        program(
            """
  %x = f32[100,10]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %y = f32[10]{0} parameter(2)
  ROOT %fusion = f32[10]{0} fusion(%x, %i, %y), kind=kLoop, calls=%outer""",
            SLICES,
            ("outer", outer),
        )
    )
    assert kernels["fusion"].moved == 124
    assert kernels["fusion"].operations == 10


def test_slice_that_is_updated_in_place():
    fused = """
  %p = f32[100,10]{1,0} parameter(0)
  %row = f32[1,10]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = f32[100,10]{1,0} dynamic-update-slice(%p, %row, %i, %zero)"""
    kernels = found(
        program(
            """
  %x = f32[100,10]{1,0} parameter(0)
  %row = f32[1,10]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %fusion = f32[100,10]{1,0} fusion(%x, %row, %i), kind=kLoop, calls=%fused""",
            ("fused", fused),
        )
    )
    # The row is read, and written; the index is read.
    assert kernels["fusion"] == Kernel("fusion", "fusion", 1, 40 + 4 + 40)


def test_sums_and_products_count_what_they_add():
    fused = """
  %a = f32[4,50,20]{2,1,0} parameter(0)
  %b = f32[4,20,30]{2,1,0} parameter(1)
  %product = f32[4,50,30]{2,1,0} dot(%a, %b), lhs_contracting_dims={2}, rhs_contracting_dims={1}
  %zero = f32[] constant(0)
  ROOT %total = f32[4]{0} reduce(%product, %zero), dimensions={1,2}, to_apply=%sum"""
    kernels = found(
        program(
            """
  %a = f32[4,50,20]{2,1,0} parameter(0)
  %b = f32[4,20,30]{2,1,0} parameter(1)
  %c = f32[50,20]{1,0} parameter(2)
  %d = f32[20,30]{1,0} parameter(3)
  %fusion = f32[4]{0} fusion(%a, %b), kind=kCustom, calls=%fused
  ROOT %gemm = (f32[50,30]{1,0}, s8[4194304]{0}) custom-call(%c, %d), \
custom_call_target="__cublas$gemm\"""",
            ("fused", fused),
        )
    )
    # Four products of 50·20·30 multiplications and additions; their sum has 4·50·30 terms.
    assert kernels["fusion"].flops == pytest.approx(2 * 4 * 50 * 20 * 30)
    assert kernels["fusion"].operations == 6000
    assert kernels["fusion"].moved == 4 * (4000 + 2400 + 4)
    # Less the four megabytes that the product works in.
    assert kernels["gemm"].flops == pytest.approx(2 * 50 * 20 * 30)
    assert kernels["gemm"].moved == 4 * (1000 + 600 + 1500)


BODY = """
  %state = (s32[], f32[10]{0}) parameter(0)
  %x = f32[10]{0} get-tuple-element(%state), index=1
  %y = f32[10]{0} negate(%x)
  ROOT %next = (s32[], f32[10]{0}) tuple(%i, %y)"""
CONDITION = """
  %state = (s32[], f32[10]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %limit = s32[]{:T(128)} constant(7)
  ROOT %less = pred[] compare(%i, %limit), direction=LT"""
KNOWN = ', backend_config={"known_trip_count":{"n":"%d"},"dynamic_variable_tuple_indices":[]}'
DATA = "\n  ROOT %unfinished = pred[] parameter(0)"


@pytest.mark.parametrize(
    ("condition", "attributes", "turns"),
    [
        (CONDITION, "", 7),  # it counts from 0
        (DATA, KNOWN % 12, 12),
        (DATA, "", 1),  # nobody knows
    ],
)
def test_loop_counts_as_often_as_it_turns(condition, attributes, turns):
    loop = "(s32[], f32[10]{{0}}) while({}), condition=%condition, body={}"
    outer = f"""
  %inner = {loop.format("%state", "%body")}{attributes}
  ROOT %again = (s32[], f32[10]{{0}}) tuple(%inner)"""
    text = program(
        f"""
  %start = (s32[], f32[10]{{0}}) parameter(0)
  ROOT %outer = {loop.format("%start", "%twice")}{KNOWN % 2}""",
        ("body", BODY),
        ("condition", condition),
        ("twice", outer),
    )
    assert found(text) == {"y": Kernel("y", "negate", 2 * turns, 80.0, operations=10.0)}


def test_conditional_counts_one_branch():
    sends = """
  %s = f32[10]{0} parameter(0)
  ROOT %sent = f32[10]{0} all-reduce(%s), replica_groups={}, to_apply=%sum"""
    moves = """
  %m = f32[1000]{0} parameter(0)
  ROOT %moved = f32[1000]{0} copy(%m)"""
    text = program(
        """
  %which = s32[] parameter(0)
  %x = f32[10]{0} parameter(1)
  ROOT %c = f32[10]{0} conditional(%which, %x, %x), branch_computations={%sends, %moves}""",
        ("sends", sends),
        ("moves", moves),
    )
    assert found(text) == {"moved": Kernel("moved", "copy", 1, 8000.0)}
    assert found(text, _launches.most) == {"sent": Kernel("sent", "all-reduce", 1, 80.0, sent=80.0)}
    either = "true_computation=%sends, false_computation=%moves"
    assert list(found(text.replace("branch_computations={%sends, %moves}", either))) == ["moved"]


def test_collectives_send_what_the_others_need():
    kernels = found(
        program("""
  %x = f32[8,10]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %start = ((f32[8,10]{1,0}), f32[8,10]{1,0}) all-to-all-start(%x), replica_groups={{0,1,2,3}}
  %all = f32[8,10]{1,0} all-to-all-done(%start)
  %gather = (f32[8,10]{1,0}, f32[32,10]{1,0}) all-gather-start(%all), dimensions={0}
  %gathered = f32[32,10]{1,0} all-gather-done(%gather)
  %count = s32[] all-reduce-start(%n), to_apply=%sum
  %counted = s32[] all-reduce-done(%count)
  %newer = ((f32[8,10]{1,0}), f32[8,10]{1,0}) all-reduce-start(%x), to_apply=%sum
  ROOT %summed = (f32[8,10]{1,0}, f32[4]{0}) all-reduce(%x, %y), to_apply=%sum""")
    )
    assert all(kernel.is_collective for kernel in kernels.values())
    # 320 bytes; 1280 of all four devices; a number, there and back; 320 and 336 bytes likewise.
    assert {name: kernel.sent for name, kernel in kernels.items()} == {
        **{"start": 320, "gather": 1280, "count": 8, "newer": 640, "summed": 672}
    }
    assert kernels["gather"].moved == 320 + 1280


def test_what_stays_on_a_tpu_isnt_moved():
    kernels = found(
        program(
            """
  %x = f32[100,16]{1,0:T(8,128)} parameter(0)
  %n = s32[]{:T(128)} parameter(1)
  %more = s32[]{:T(128)} add(%n, %n)
  %room = f32[10]{0:T(128)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %start = (f32[100,16]{1,0:T(8,128)S(1)}, f32[100,16]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %here = f32[100,16]{1,0:T(8,128)S(1)} copy-done(%start)
  %part = ((f32[100,16]{1,0:T(8,128)}), f32[10,16]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x)
  %last = f32[10,16]{1,0:T(8,128)S(1)} slice-done(%part)
  ROOT %fusion = bf16[100,16]{1,0:T(8,128)(2,1)} fusion(%here), kind=kLoop, calls=%fused, \
backend_config={"window_config":{"estimated_cycles":"3000"}}""",
            (
                "fused",
                """
  %p = f32[100,16]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %y = bf16[100,16]{1,0} convert(%p)""",
            ),
        )
    )
    # 6400 bytes in, 640 of them once more, and 3200 out.
    assert {name: kernel.moved for name, kernel in kernels.items()} == {
        **{"start": 6400, "part": 640, "fusion": 3200}
    }
    assert kernels["fusion"].cycles == 3000
