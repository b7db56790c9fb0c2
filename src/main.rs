mod ecosystem;
mod error;
mod image;
mod limit;
mod printable;
mod sbom;
mod time;

fn main() {}
