// Workgroups evaluate the parts of a bundle: `run` finds the elements of its own.
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  run(group_index(id), lane);
}
