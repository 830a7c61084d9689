//! Reading the bytes of a header from front to back, of which only the first may be here yet.

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file goes on: the header needs at least this many of its first bytes.
    More(u64),
    /// What is wrong with the file.
    Wrong(String),
}

impl Stop {
    pub fn wrong(problem: impl Into<String>) -> Self {
        Stop::Wrong(problem.into())
    }

    /// The same with the name of what was being read.
    pub fn within(self, name: impl Fn() -> String) -> Self {
        match self {
            Stop::Wrong(problem) => Stop::Wrong(format!("{}: {problem}", name())),
            more => more,
        }
    }
}

pub(super) type Parsed<T> = Result<T, Stop>;

/// A place in the first bytes of a file.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the header has to end: with the file, or where headers become too long.
    limit: u64,
}

impl<'a> Cursor<'a> {
    /// `bytes` are the first of a file whose header ends at `limit` or before.
    pub fn new(bytes: &'a [u8], limit: u64) -> Self {
        Cursor { bytes, at: 0, limit }
    }

    pub fn position(&self) -> u64 {
        self.at as u64
    }

    /// Bytes that the header can still have.
    pub fn left(&self) -> u64 {
        self.limit - self.position()
    }

    /// The next `len` bytes, which hold `what`.
    pub fn take(&mut self, len: u64, what: &str) -> Parsed<&'a [u8]> {
        if len > self.left() {
            return Err(Stop::Wrong(format!("{what} takes {len} bytes, but {} are left for the header", self.left())));
        }
        // Beyond the address space there is nothing that could have been read.
        let end = self.position() + len;
        let bytes = usize::try_from(end).ok().and_then(|end| self.bytes.get(self.at..end)).ok_or(Stop::More(end))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    pub fn u32(&mut self, what: &str) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length and as many bytes of UTF-8.
    pub fn text(&mut self, what: &str) -> Parsed<&'a str> {
        let bytes = self.text_bytes(what)?;
        std::str::from_utf8(bytes).map_err(|_| Stop::Wrong(format!("{what} is not UTF-8: `{}`", bytes.escape_ascii())))
    }

    /// The bytes of a text.
    pub fn text_bytes(&mut self, what: &str) -> Parsed<&'a [u8]> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Parsed<[u8; N]> {
        let bytes = self.take(N as u64, what)?;
        Ok(bytes.try_into().expect("as many bytes as were asked for"))
    }
}

/// A name from a file, as messages show it.
pub(super) fn shown(name: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut text: String = name.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_CHARS).is_some() {
        text.push_str("...");
    }
    format!("`{text}`")
}
