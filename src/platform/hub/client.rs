//! Requests to a hub: redirects, credentials, time limits and retries.
//!
//! Redirects are followed here and not by `ureq`, because the first answer of a hub carries what its storage does not know (commit,
//! checksum and size of the file), and because the token must not reach another host.

use super::environment::HubOptions;
use std::io::Read;
use std::ops::Range;
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode, header};
use ureq::{Agent, Body};
use url::Url;

/// As many as the Python client follows at most in a sensible setting; a loop ends here.
const MAX_REDIRECTS: usize = 10;
/// Retries after an answer that asks to come back later.
const MAX_RETRIES: u32 = 4;
/// A server that wants a longer pause than this is not waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An answer about a model lists its files: some hundred kilobytes for the largest.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// Sends requests to one hub.
pub(super) struct Client<'a> {
    options: &'a HubOptions,
    agent: Agent,
}

/// An answer with a body to read.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
    /// Where it came from in the end.
    pub url: Url,
    pub linked: Linked,
}

/// What the hub says about a file before it sends the client elsewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Linked {
    pub etag: Option<String>,
    pub size_bytes: Option<u64>,
}

/// Why there is no usable answer. The text names the address.
#[derive(Debug)]
pub(super) struct Failure {
    pub message: String,
    pub status: Option<StatusCode>,
    /// The hub's own word for it, such as `GatedRepo`.
    pub code: Option<String>,
    /// Trying again can help.
    pub is_transient: bool,
    /// The next step, where there is one.
    pub hint: Option<&'static str>,
}

/// What is asked for at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask<'r> {
    Content(Option<&'r str>),
    /// What the hub says about a file, but not the file.
    Description,
}

impl Failure {
    pub fn new(message: String) -> Self {
        Failure { message, status: None, code: None, is_transient: false, hint: None }
    }
}

impl<'a> Client<'a> {
    pub fn new(options: &'a HubOptions) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("moebius/", env!("CARGO_PKG_VERSION")))
            // Ranges and checksums are about the bytes as stored.
            .accept_encoding("identity")
            // Some servers send a body where none belongs; the next answer must not begin with it.
            .max_idle_connections(0)
            .timeout_resolve(Some(options.timeout))
            .timeout_connect(Some(options.timeout))
            .timeout_per_read(Some(options.timeout))
            .timeout_per_write(Some(options.timeout))
            .build();
        Client { options, agent: config.into() }
    }

    /// `GET url`, of a file only the bytes of `range` where one is given; `waiting` is told about every pause.
    pub fn get(&self, url: &str, range: Option<&str>, waiting: &mut dyn FnMut(&str)) -> Result<Answer, Failure> {
        let mut pause = self.options.first_pause;
        let mut retries = 0;
        loop {
            let failure = match self.follow(url, Ask::Content(range)) {
                Ok(answer) => match refused(&answer) {
                    None => return Ok(answer),
                    Some(failure) if !failure.is_transient || retries == MAX_RETRIES => return Err(failure),
                    Some(failure) => {
                        if let Some(asked) = retry_after(&answer.headers) {
                            if asked > LONGEST_PAUSE {
                                let seconds = asked.as_secs();
                                let message = format!("{}, and asks to wait {seconds} s", failure.message);
                                return Err(Failure { message, ..failure });
                            }
                            pause = pause.max(asked);
                        }
                        failure
                    }
                },
                Err(failure) if !failure.is_transient || retries == MAX_RETRIES => return Err(failure),
                Err(failure) => failure,
            };
            waiting(&format!("{}: trying again in {:.0} s", failure.message, pause.as_secs_f64().ceil()));
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            retries += 1;
        }
    }

    /// What the headers for `url` say, without its content. Some servers refuse such requests.
    pub fn describe(&self, url: &str) -> Result<Answer, Failure> {
        let answer = self.follow(url, Ask::Description)?;
        if answer.status.is_redirection() { Ok(answer) } else { refused(&answer).map_or(Ok(answer), Err) }
    }

    /// The text of a JSON answer.
    pub fn get_json(&self, url: &str, waiting: &mut dyn FnMut(&str)) -> Result<String, Failure> {
        let mut answer = self.get(url, None, waiting)?;
        let mut text = String::new();
        let read = answer.body.as_reader().take(MAX_JSON_BYTES).read_to_string(&mut text);
        read.map_err(|error| Failure::new(format!("{}: {}", answer.url, because(&ureq::Error::from(error)))))?;
        if is_page(&answer.headers) || text.trim_start().starts_with('<') {
            return Err(Failure::new(format!("{} {PAGE}", answer.url)));
        }
        Ok(text)
    }

    fn follow(&self, url: &str, ask: Ask) -> Result<Answer, Failure> {
        let mut url = Url::parse(url).map_err(|error| Failure::new(format!("{url}: {error}")))?;
        let home = Url::parse(&self.options.endpoint).map_err(|error| Failure::new(format!("{url}: {error}")))?.origin();
        let mut linked = Linked::default();
        let mut at_home = true;
        for _ in 0..=MAX_REDIRECTS {
            // Once away, the token stays away, even if a redirect leads back.
            at_home &= url.origin() == home;
            let answer = self.send(&url, ask, at_home)?;
            let headers = answer.headers();
            if at_home {
                linked.etag = text_of(headers, "x-linked-etag").map(normal_etag).or(linked.etag);
                linked.size_bytes = text_of(headers, "x-linked-size").and_then(|size| size.parse().ok()).or(linked.size_bytes);
            }
            let is_described = ask == Ask::Description && linked.etag.is_some();
            if is_described || !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                let (parts, body) = answer.into_parts();
                return Ok(Answer { status: parts.status, headers: parts.headers, body, url, linked });
            }
            url = target_of(&url, headers, answer.status())?;
        }
        Err(Failure::new(format!("{url}: more than {MAX_REDIRECTS} redirects, one after the other")))
    }

    fn send(&self, url: &Url, ask: Ask, with_token: bool) -> Result<ureq::http::Response<Body>, Failure> {
        let mut request = match ask {
            Ask::Content(None) => self.agent.get(url.as_str()),
            Ask::Content(Some(range)) => self.agent.get(url.as_str()).header("Range", range),
            Ask::Description => {
                let limit = Some(self.options.etag_timeout);
                self.agent.head(url.as_str()).config().timeout_connect(limit).timeout_per_read(limit).build()
            }
        };
        if let Some(token) = self.options.token.as_ref().filter(|_| with_token) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| Failure {
            is_transient: matches!(&error, ureq::Error::Io(io) if is_cut(io)),
            hint: unreachable_hint(&error),
            ..Failure::new(format!("{}: {}", without_query(url), because(&error)))
        })
    }
}

const BUSY: &str = "wait a while and run the command again; with a token in HF_TOKEN the hub answers more often";
const OUT_OF_ORDER: &str =
    "the hub is busy or out of order: run the command again later; HF_ENDPOINT names another hub, if you have one";
const REFUSED: &str = "is HF_ENDPOINT the address of a hub that runs? Without it models come from https://huggingface.co";
const NO_NETWORK: &str = "`moebius models` lists what is on this machine already, and runs without a network";

/// What a page in place of data most often is.
const PAGE: &str =
    "answered with a web page instead of data: is this the login page of a network, a proxy, or no model hub at all?";

/// Where a redirect leads.
fn target_of(url: &Url, headers: &HeaderMap, status: StatusCode) -> Result<Url, Failure> {
    let from = without_query(url);
    let Some(location) = text_of(headers, "location") else {
        return Err(Failure::new(format!(
            "{from} redirects (HTTP {}) without saying where: a proxy or a portal?",
            status.as_u16()
        )));
    };
    let target = url.join(location).map_err(|error| Failure::new(format!("{from} redirects to `{location}`: {error}")))?;
    if !matches!(target.scheme(), "http" | "https") {
        return Err(Failure::new(format!("{from} redirects to `{location}`, which is no address of the web")));
    }
    Ok(target)
}

/// An answer that is none, as a failure.
fn refused(answer: &Answer) -> Option<Failure> {
    let Answer { status, headers, url, .. } = answer;
    if status.is_success() {
        return None;
    }
    let code = text_of(headers, "x-error-code").map(str::to_owned);
    let said = text_of(headers, "x-error-message").map_or(String::new(), |message| format!(": {}", shortened(message)));
    let reason = status.canonical_reason().map_or(String::new(), |reason| format!(" {reason}"));
    Some(Failure {
        message: format!("{} answered HTTP {}{reason}{said}", without_query(url), status.as_u16()),
        status: Some(*status),
        code,
        is_transient: status.as_u16() == 408 || status.as_u16() == 429 || status.is_server_error(),
        hint: match status.as_u16() {
            429 => Some(BUSY),
            _ if status.is_server_error() => Some(OUT_OF_ORDER),
            _ => None,
        },
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Signed addresses hide their secrets in the query.
pub(super) fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_password(None);
    url.into()
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = text_of(headers, "retry-after")?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?.timestamp();
    Some(Duration::from_secs(u64::try_from(date).ok()?.saturating_sub(super::super::unix_seconds())))
}

pub(super) fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// An etag without its quotes and without the mark of a weak one.
pub(super) fn normal_etag(text: &str) -> String {
    text.trim_start_matches("W/").trim_matches('"').to_owned()
}

pub(super) fn is_page(headers: &HeaderMap) -> bool {
    text_of(headers, header::CONTENT_TYPE.as_str()).is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
}

/// The failure of a file that is a page.
pub(super) fn page_failure(url: &Url) -> Failure {
    Failure::new(format!("{} {PAGE}", without_query(url)))
}

fn is_cut(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}

/// The cause of a failed request in the words of a user.
pub(super) fn because(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "the server sent nothing for too long (HF_HUB_DOWNLOAD_TIMEOUT sets how long)".to_owned(),
        ureq::Error::HostNotFound => "the host is not found: is there a network?".to_owned(),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "the connection was refused: nothing listens at this address".to_owned()
        }
        ureq::Error::Io(error) if is_cut(error) => "the connection was cut".to_owned(),
        ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<ureq::Error>()) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
            inner.map_or_else(|| error.to_string(), because)
        }
        ureq::Error::ConnectProxyFailed(said) => format!(
            "the proxy of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY makes no connection to this host ({said}); NO_PROXY=HOST goes around it"
        ),
        ureq::Error::InvalidProxyUrl => "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is no address of a proxy".to_owned(),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => insecure(error),
        // What rustls says comes so while data is read or written.
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => insecure(error),
        other => other.to_string(),
    }
}

/// What helps where no server answers.
fn unreachable_hint(error: &ureq::Error) -> Option<&'static str> {
    match error {
        ureq::Error::HostNotFound => Some(NO_NETWORK),
        ureq::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(inner) => unreachable_hint(inner),
            None if io.kind() == std::io::ErrorKind::ConnectionRefused => Some(REFUSED),
            None if matches!(io.kind(), std::io::ErrorKind::NetworkUnreachable | std::io::ErrorKind::HostUnreachable) => {
                Some(NO_NETWORK)
            }
            None => None,
        },
        _ => None,
    }
}

fn insecure(error: &ureq::Error) -> String {
    format!(
        "no secure connection ({error}): is the clock right, does a proxy replace certificates, or does this server speak plain http://?"
    )
}

/// The value of a `Range` header.
pub(super) fn range_text(bytes: Range<u64>) -> String {
    format!("bytes={}-{}", bytes.start, bytes.end.max(1) - 1)
}
