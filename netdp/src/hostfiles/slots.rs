//! A text file that is changed in place while others read it, so that no reader ever sees half a line.
//!
//! `ip netns exec` bind-mounts files, and so does `run`: whoever has one mounted would never see a new file that is
//! renamed over it. So the lines have fixed places. Each takes one slot of [`SLOT`] bytes (a very long one several), with
//! blanks before the line's end; a free slot is a comment. A line is written into a free slot behind the comment
//! sign, and the sign is replaced last; a line is removed by the sign. Either is the write of one byte, and nothing that
//! stays ever moves. Slots don't straddle the blocks in which libc reads (a power of two, at least 512).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;

use crate::failpoint;

/// Bytes of a slot, the line's end included: an IPv6 address (39), a tab, a name (63), and room.
const SLOT: usize = 128;
/// What makes a line a comment, in hosts(5) and resolv.conf(5).
const COMMENT: u8 = b'#';

/// An open file of that form.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    lines: Vec<Line>,
    /// Number of slots.
    end: usize,
}

#[derive(Debug)]
struct Line {
    /// Its first slot.
    at: usize,
    /// How many it takes.
    slots: usize,
    /// None: free.
    text: Option<String>,
}

/// A new file's bytes: the mark, which is its first line, then these lines.
pub(super) fn render(mark: &str, lines: &[String]) -> Vec<u8> {
    std::iter::once(mark).chain(lines.iter().map(String::as_str)).flat_map(padded).collect()
}

impl Slots {
    /// Reads an open file; none if it doesn't have that form.
    pub(super) fn read(mut file: File) -> io::Result<Option<Self>> {
        let mut bytes = String::new();
        file.read_to_string(&mut bytes)?;
        let (mut lines, mut end) = (Vec::new(), 0);
        for line in bytes.split_inclusive('\n') {
            if line.len() % SLOT != 0 || !line.ends_with('\n') {
                return Ok(None);
            }
            let slots = line.len() / SLOT;
            let text = (line.as_bytes()[0] != COMMENT).then(|| line.trim_end().to_owned());
            lines.push(Line { at: end, slots, text });
            end += slots;
        }
        Ok((!lines.is_empty()).then_some(Self { file, lines, end }))
    }

    /// Makes it have exactly these lines behind its mark, in whatever order.
    pub(super) fn set(&mut self, wanted: &[String]) -> io::Result<()> {
        let missing: Vec<&String> =
            wanted.iter().filter(|line| !self.texts().any(|text| text == line.as_str())).collect();
        for line in missing {
            let free = self.free_run(1).filter(|_| padded(line).len() == SLOT);
            self.put(free.unwrap_or(self.end), line)?;
        }
        self.remove_where(|line| line.text.as_ref().is_some_and(|text| !wanted.contains(text)))
    }

    /// Makes it have exactly these lines, in this order. Meanwhile the old ones come first, and nothing is missing.
    pub(super) fn replace(&mut self, wanted: &[String]) -> io::Result<()> {
        if self.texts().eq(wanted.iter().map(String::as_str)) {
            return Ok(());
        }
        let old: Vec<usize> =
            self.lines.iter().filter(|line| line.text.is_some()).map(|line| line.at).collect();
        let short = wanted.iter().all(|line| padded(line).len() == SLOT);
        let mut at = self.free_run(wanted.len()).filter(|_| short).unwrap_or(self.end);
        for line in wanted {
            self.put(at, line)?;
            at += padded(line).len() / SLOT;
        }
        self.remove_where(|line| old.contains(&line.at))
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| line.text.as_deref())
    }

    /// The first of so many free slots in a row. The mark is none, and neither is where a very long line was.
    fn free_run(&self, wanted: usize) -> Option<usize> {
        let usable = |line: &Line| line.at > 0 && line.slots == 1 && line.text.is_none();
        let run = self.lines.windows(wanted.max(1)).find(|run| run.iter().all(usable))?;
        run.first().map(|line| line.at)
    }

    /// Writes a line into free slots or behind the last one, as a comment first.
    fn put(&mut self, at: usize, text: &str) -> io::Result<()> {
        let mut bytes = padded(text);
        let slots = bytes.len() / SLOT;
        let sign = std::mem::replace(&mut bytes[0], COMMENT);
        failpoint::pass("write a line")?;
        self.file.write_all_at(&bytes, offset(at))?;
        failpoint::pass("let a line count")?;
        self.file.write_all_at(&[sign], offset(at))?;
        self.lines.retain(|line| line.at != at);
        self.lines.push(Line { at, slots, text: Some(text.to_owned()) });
        self.lines.sort_by_key(|line| line.at);
        self.end = self.end.max(at + slots);
        Ok(())
    }

    fn remove_where(&mut self, unwanted: impl Fn(&Line) -> bool) -> io::Result<()> {
        for line in self.lines.iter_mut().filter(|line| unwanted(line)) {
            failpoint::pass("remove a line")?;
            self.file.write_all_at(&[COMMENT], offset(line.at))?;
            if line.slots == 1 {
                self.file.write_all_at(&padded("#"), offset(line.at))?;
            }
            line.text = None;
        }
        Ok(())
    }
}

/// The line's bytes, as many as its slots have.
fn padded(text: &str) -> Vec<u8> {
    let length = (text.len() + 1).next_multiple_of(SLOT);
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length - 1, b' ');
    bytes.push(b'\n');
    bytes
}

fn offset(slot: usize) -> u64 {
    (slot * SLOT) as u64
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn open(path: &Path) -> Option<Slots> {
        Slots::read(OpenOptions::new().read(true).write(true).open(path).unwrap()).unwrap()
    }

    fn active(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn freed_slots_are_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, render("# mark", &lines(&["a", "b", "c"]))).unwrap();
        let long = "x".repeat(3 * SLOT);
        open(&path).unwrap().set(&lines(&["a", "c", &long])).unwrap();
        assert_eq!(active(&path), ["a", "c", &long]);
        open(&path).unwrap().set(&lines(&["c", "d", "e"])).unwrap();
        assert_eq!(
            active(&path),
            ["d", "c", "e"],
            "in b's slot and behind the long one, which are free first"
        );
        open(&path).unwrap().set(&lines(&["c", "f"])).unwrap();
        assert_eq!(active(&path), ["f", "c"]);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# mark"));
        let size = std::fs::metadata(&path).unwrap().len();
        for round in 0..10 {
            open(&path).unwrap().set(&lines(&["c", &round.to_string()])).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "it does not grow");
    }

    #[test]
    fn an_order_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, render("# mark", &lines(&["a", "b"]))).unwrap();
        for wanted in [&["b", "a"][..], &["b", "c", "a"], &["a"], &["c", "a", "b"], &["b", "c", "a"]] {
            open(&path).unwrap().replace(&lines(wanted)).unwrap();
            assert_eq!(active(&path), wanted);
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= 12 * SLOT as u64);
    }

    #[test]
    fn an_edited_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        for text in ["", "# mark\n", "a line of 128 bytes is hardly ever written by hand"] {
            std::fs::write(&path, text).unwrap();
            assert!(open(&path).is_none(), "{text}");
        }
    }

    /// Neighbours come and go while somebody reads, as libc does, in blocks.
    #[test]
    fn readers_see_whole_lines_and_miss_none_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let stays = lines(&["10.0.0.1\tfirst", "10.0.0.2\tlast"]);
        std::fs::write(&path, render("# mark", &stays)).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..300u32 {
                    let others =
                        (0..round % 50).map(|n| format!("10.1.{}.{n}\tname-{}-{n}", round % 7, round % 7));
                    let wanted: Vec<String> = stays.iter().cloned().chain(others).collect();
                    open(&path).unwrap().set(&wanted).unwrap();
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                let seen = active(&path);
                assert!(stays.iter().all(|line| seen.contains(line)), "{seen:?}");
                for line in seen.iter().filter(|line| !stays.contains(line)) {
                    let (addr, name) = line.split_once('\t').expect("an address and a name");
                    let numbers: Vec<&str> = addr.split('.').skip(2).collect();
                    assert_eq!(format!("name-{}-{}", numbers[0], numbers[1]), name, "half a line");
                }
            }
        });
    }
}
