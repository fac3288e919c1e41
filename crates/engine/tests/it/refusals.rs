//! Files that are no models, each refused for what it is.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use modelyard_core::Format;
use modelyard_engine::load;

use crate::onnx_writer::{FLOAT, OnnxModel};
use crate::rten;

fn refused(path: &Path, format: Format) -> (&'static str, String) {
    let error = load(format, path, &rten()).err().expect("it must be refused");
    (error.code(), error.to_string())
}

fn code(bytes: &[u8], format: Format) -> &'static str {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    refused(file.path(), format).0
}

/// A zip of empty files, stored.
fn zip(names: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut list = Vec::new();
    for name in names {
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let offset = u32::try_from(out.len()).unwrap().to_le_bytes();
        out.extend([b"PK\x03\x04".as_slice(), &[0; 22], &length, &[0; 2], name.as_bytes()].concat());
        list.extend([b"PK\x01\x02".as_slice(), &[0; 24], &length, &[0; 12], &offset, name.as_bytes()].concat());
    }
    let (size, at) = (u32::try_from(list.len()).unwrap(), u32::try_from(out.len()).unwrap());
    out.extend(&list);
    out.extend([b"PK\x05\x06".as_slice(), &[0; 8], &size.to_le_bytes(), &at.to_le_bytes(), &[0; 2]].concat());
    out
}

fn add() -> Vec<u8> {
    OnnxModel::default()
        .node("Add", &["a", "c"], &["b"])
        .constant("c", &[64], &[1.0; 64])
        .input("a", FLOAT, &[-1, 64])
        .output("b", FLOAT, &[-1, 64])
        .write("add")
}

#[test]
fn each_kind_of_file_has_its_own_refusal() {
    let cases: [(&[u8], &str); 15] = [
        (b"", "empty"),
        (b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.", "pickle"),
        (b"\x80\x02}q\x00.", "pickle"),
        (&zip(&["archive/data.pkl", "archive/data/0"]), "pickle"),
        (&zip(&["saved_model.pb", "variables/variables.index"]), "savedmodel"),
        (&zip(&["readme.txt"]), "archive"),
        (b"PK\x03\x04 cut off", "archive"),
        (b"\x89HDF\r\n\x1a\n", "keras"),
        (b"\x1f\x8b\x08\x00", "archive"),
        (b"<!DOCTYPE html><title>Sign in</title>", "html"),
        (b"  <html>404</html>", "html"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "lfs-pointer"),
        (b"just some notes, not a model", "text"),
        (&[0; 4096], "not-onnx"),
        (b"\x13\x37\xff\x00\x01\x02\x03random bytes", "not-onnx"),
    ];
    for (bytes, expected) in cases {
        let start: String = String::from_utf8_lossy(bytes).chars().take(20).collect();
        assert_eq!(code(bytes, Format::Onnx), expected, "{start:?}");
    }
    assert_eq!(code(&add(), Format::Dense), "not-json");
    assert_eq!(code(b"notes", Format::Dense), "dense-invalid");
    assert_eq!(code(b"\x80\x04.", Format::Dense), "pickle");
    assert_eq!(code(&add(), Format::Tensorflow), "not-graphdef");
}

#[test]
fn a_model_cut_off_anywhere_is_refused() {
    let whole = add();
    for length in 0..whole.len() {
        let code = code(&whole[..length], Format::Onnx);
        // Of the first bytes nothing can be said yet.
        let expected: &[&str] = if length < 3 { &["empty", "not-onnx", "truncated"] } else { &["truncated"] };
        assert!(expected.contains(&code), "cut off at {length} of {}: {code}", whole.len());
    }
}

#[test]
fn directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(refused(dir.path(), Format::Onnx).0, "directory");
    File::create(dir.path().join("saved_model.pb")).unwrap();
    assert_eq!(refused(dir.path(), Format::Onnx).0, "savedmodel");
    assert_eq!(refused(&dir.path().join("absent"), Format::Onnx).0, "io");
}

#[test]
fn a_graph_without_nodes_is_no_model() {
    let empty = OnnxModel::default().input("a", FLOAT, &[1]).output("a", FLOAT, &[1]).write("empty");
    assert_eq!(code(&empty, Format::Onnx), "not-onnx");
}

#[test]
fn data_in_other_files_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let model = OnnxModel::default()
        .node("Add", &["a", "secret"], &["b"])
        .external_constant("secret", &[1], "../../../etc/hostname")
        .input("a", FLOAT, &[1])
        .output("b", FLOAT, &[1])
        .write("external");
    std::fs::write(file.path(), model).unwrap();
    let (code, message) = refused(file.path(), Format::Onnx);
    assert_eq!(code, "external-data");
    assert!(message.contains("`secret`"), "{message}");
}

#[test]
fn outputs_that_are_no_tensors_are_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let model = OnnxModel::default()
        .node("Add", &["a", "a"], &["b"])
        .input("a", FLOAT, &[1])
        .sequence_output("probabilities")
        .write("zipmap");
    std::fs::write(file.path(), model).unwrap();
    let (code, message) = refused(file.path(), Format::Onnx);
    assert_eq!(code, "unsupported-signature");
    assert!(message.contains("`probabilities`") && message.contains("zipmap"), "{message}");
}

#[test]
fn a_huge_file_is_refused_without_being_read() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // Sparse: 2 GiB that take no disk.
    file.as_file().set_len(2 << 30).unwrap();
    assert_eq!(refused(file.path(), Format::Onnx).0, "not-onnx");
    // A plausible header, then a graph that claims more than there is.
    file.write_all(b"\x08\x08\x3a\xff\xff\xff\xff\x7f").unwrap();
    assert_eq!(refused(file.path(), Format::Onnx).0, "truncated");
}
