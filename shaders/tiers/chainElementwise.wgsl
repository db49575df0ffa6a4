// Stage S of a chain, an expression over elements of a task.
fn stage_S(task: u32, lane: u32) {
  for (var i = lane; i < COUNT_S; i += WIDTH) { evaluate_S(task, i); }
}
