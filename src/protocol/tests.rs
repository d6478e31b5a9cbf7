//! Tests of the contract's types: against golden frames, of every refusal's text, and of what no input may do.

mod golden;
mod properties;
mod refusals;

/// A golden file: literal text of the contract, never made by this code.
fn golden(name: &str) -> String {
    let path = golden_path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the golden files in a folder, sorted.
fn golden_names(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(golden_path(folder))
        .expect("the folder is part of the source")
        .map(|entry| entry.expect("a readable entry").path())
        .map(|path| path.file_stem().expect("a file name").to_str().expect("an ASCII name").to_owned())
        .collect();
    names.sort_unstable();
    names
}

fn golden_path(name: &str) -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol/golden");
    folder.join(name)
}
