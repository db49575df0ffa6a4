// A workgroup takes one task through all stages.
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let task = group_index(id);
  if (task >= params.tasks) { return; }
  stages(task, lane);
}
