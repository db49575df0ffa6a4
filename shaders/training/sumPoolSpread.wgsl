fn takes(n: u32, oh: u32, ow: u32, c: u32, pixel: i32) -> bool { return true; }
