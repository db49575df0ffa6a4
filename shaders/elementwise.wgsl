// One thread evaluates the expression for PER_THREAD elements, a workgroup's width apart.
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let start = group_index(id) * (WIDTH * PER_THREAD) + lane;
  for (var e = 0u; e < PER_THREAD; e++) {
    let i = start + e * WIDTH;
    if (i < params.count) { evaluate(i); }
  }
}
