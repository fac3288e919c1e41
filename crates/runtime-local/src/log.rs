//! The log file of a replica: opened for its worker, kept small, read from its end.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// A log longer than this, in bytes, is set aside when a worker starts.
const ROTATE_AT: u64 = 8 << 20;
/// No reader gets more than this many bytes of a file.
const READ_AT_MOST: u64 = 4 << 20;
const CHUNK: u64 = 64 << 10;

/// Opens the log of a replica for a new worker. Also gives the length of what earlier ones wrote, in bytes.
pub(crate) fn open(dir: &Path) -> io::Result<(File, u64)> {
    let path = dir.join("log");
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > ROTATE_AT) {
        fs::rename(&path, dir.join("log.1"))?;
    }
    let file = File::options().append(true).create(true).open(&path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// The last `lines` lines of a replica's log, each ended by a newline. An absent log is empty.
pub(crate) fn tail(dir: &Path, lines: usize) -> io::Result<String> {
    let mut found = last_lines(&dir.join("log"), lines, 0)?;
    if found.len() < lines {
        let mut older = last_lines(&dir.join("log.1"), lines - found.len(), 0)?;
        older.append(&mut found);
        found = older;
    }
    Ok(found.into_iter().map(|line| line + "\n").collect())
}

/// What a worker said last: the end of what it wrote from byte `from` on, at most `max` characters of whole lines
/// where they fit. `None` if it said nothing.
pub(crate) fn last_words(dir: &Path, from: u64, max: usize) -> Option<String> {
    let lines = last_lines(&dir.join("log"), 5, from).ok()?;
    let mut words = String::new();
    for line in lines.iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty()) {
        if words.is_empty() {
            words = line.chars().take(max).collect();
        } else if words.chars().count() + line.chars().count() + 3 <= max {
            words = format!("{line} | {words}");
        } else {
            break;
        }
    }
    (!words.is_empty()).then_some(words)
}

fn last_lines(path: &Path, lines: usize, from: u64) -> io::Result<Vec<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let end = file.metadata()?.len();
    let floor = from.max(end.saturating_sub(READ_AT_MOST));
    let mut start = end;
    let mut bytes = Vec::new();
    // One newline more than lines: the first of them may be cut.
    while start > floor && bytes.iter().filter(|b| **b == b'\n').count() <= lines {
        let before = start;
        start = start.saturating_sub(CHUNK).max(floor);
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = Vec::new();
        (&mut file).take(before - start).read_to_end(&mut chunk)?;
        chunk.append(&mut bytes);
        bytes = chunk;
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_crosses_chunks_and_the_rotated_file() {
        let dir = tempfile::tempdir().unwrap();
        let line = |n: u32| format!("line {n} {}\n", "x".repeat(1000));
        fs::write(dir.path().join("log.1"), (0..100).map(line).collect::<String>()).unwrap();
        fs::write(dir.path().join("log"), (100..300).map(line).collect::<String>()).unwrap();
        assert_eq!(tail(dir.path(), 150).unwrap(), (150..300).map(line).collect::<String>());
        assert_eq!(tail(dir.path(), 250).unwrap(), (50..300).map(line).collect::<String>());
        assert_eq!(tail(dir.path(), 1000).unwrap(), (0..300).map(line).collect::<String>());
        assert_eq!(tail(&dir.path().join("absent"), 5).unwrap(), "");
    }

    #[test]
    fn a_long_log_is_set_aside_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("log")).unwrap();
        file.set_len(ROTATE_AT).unwrap();
        assert_eq!(open(dir.path()).unwrap().1, ROTATE_AT);
        file.set_len(ROTATE_AT + 1).unwrap();
        assert_eq!(open(dir.path()).unwrap().1, 0);
        assert_eq!(fs::metadata(dir.path().join("log.1")).unwrap().len(), ROTATE_AT + 1);
    }

    #[test]
    fn last_words_are_those_of_the_last_run_and_short() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), "old\n").unwrap();
        assert_eq!(last_words(dir.path(), 4, 300), None);
        fs::write(dir.path().join("log"), format!("old\n{}\nwhy\n\nError: no\n", "y".repeat(300))).unwrap();
        assert_eq!(last_words(dir.path(), 4, 300).as_deref(), Some("why | Error: no"));
        assert_eq!(last_words(dir.path(), 4, 5).as_deref(), Some("Error"));
    }
}
