mod ecosystem;
mod error;
mod image;
mod layer;
mod limit;
mod printable;
mod sbom;
mod time;

fn main() {}
