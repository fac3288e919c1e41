//! What processes have used, as Linux counts it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

/// The processes, and all that descend from them.
pub(crate) fn family(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(parent) = parent(process) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found: HashSet<u32> = roots.iter().copied().collect();
    let mut open: Vec<u32> = roots.to_vec();
    while let Some(process) = open.pop() {
        open.extend(children.get(&process).into_iter().flatten().filter(|child| found.insert(**child)));
    }
    found.into_iter().collect()
}

fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The time on a core of all threads of these processes that still run.
pub(crate) fn time(processes: &[u32]) -> Duration {
    let threads = processes.iter().filter_map(|p| fs::read_dir(format!("/proc/{p}/task")).ok()).flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Resident memory of these processes, in bytes. Pages that they share are counted for each.
pub(crate) fn memory(processes: &[u32]) -> u64 {
    let resident = processes.iter().filter_map(|p| {
        let status = fs::read_to_string(format!("/proc/{p}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    resident.sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to() {
        let own = [std::process::id()];
        let before = time(&own);
        let mut sum = 0_u64;
        while time(&own) - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(memory(&own) > 100_000);
        assert!(family(&own).contains(&own[0]));
    }
}
