//! The interactive page in a real browser: nothing is complained about, the plots are there, and the choices work. Where no
//! browser is installed, these tests say so and end.
//!
//! With `PARSIMONY_KEEP_PAGES=FOLDER` pages and screenshots stay in that folder, to be looked at.

#[path = "support/run_folder.rs"]
mod run_folder;

use parsimony::report::{runs, write_report};
use run_folder::{Row, Sketch};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const QUESTION: &str = "Which optimizer is there first, and \"</script>\" with how many <parameters>?";

/// A browser that runs without a screen.
fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    names
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

/// The page as it stands after its scripts have run, and what was said on the console.
fn opened(browser: &str, page: &Path, fragment: &str, more: &[&str]) -> (String, String) {
    let profile = tempfile::tempdir().expect("a folder");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=8000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(more)
        .args(["--dump-dom".to_owned(), format!("file://{}{fragment}", page.display())])
        .output()
        .expect("the browser starts");
    let console = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = console.lines().filter(|line| line.contains("CONSOLE")).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), said.join("\n"))
}

/// Keeps a screenshot where they are wanted.
fn keep(browser: &str, page: &Path, name: &str, size: &str, more: &[&str]) {
    let Some(folder) = std::env::var_os("PARSIMONY_KEEP_PAGES") else { return };
    fs::create_dir_all(&folder).expect("a folder");
    let shot = format!("--screenshot={}", Path::new(&folder).join(format!("{name}.png")).display());
    let size = format!("--window-size={size}");
    opened(browser, page, "", &[&[shot.as_str(), size.as_str()], more].concat());
}

fn write(sketches: &[Sketch], folder: &Path) -> PathBuf {
    run_folder::write(folder, Some(QUESTION), sketches);
    let expectations = "about = \"any\"\nclaim = \"IRLS is <first>.\"\n[[expect]]\nthat = \"median(irls[model = logistic].steps) < 9\"\n";
    let file = folder.join("experiment.toml");
    let text = fs::read_to_string(&file).expect("TOML");
    fs::write(&file, format!("{text}{expectations}")).expect("TOML");
    let runs = runs::load(folder).expect("a run");
    let written = write_report(&runs, &folder.join("plots")).expect("a report");
    written.into_iter().find(|path| path.ends_with("report.html")).expect("a page").canonicalize().expect("a path")
}

/// Plots that were drawn: with an axis, and with a line or markers on it.
fn plots(dom: &str) -> usize {
    let drawn = |part: &&str| {
        let part = part.split("</svg>").next().unwrap_or_default();
        part.contains("class=\"axis\"") && (part.contains("stroke-linejoin") || part.contains("fill=\"rgb("))
    };
    dom.split("<svg")
        .skip(1)
        .filter(|part| part.starts_with(" viewBox") && part.contains("role=\"img\""))
        .filter(drawn)
        .count()
}

#[test]
fn the_page_opens_without_complaint_and_its_choices_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = write(&run_folder::higgs(), folder.path());
    let text = fs::read_to_string(&page).expect("a page");
    assert!(!text.contains("http://") || text.matches("http://").count() == text.matches("http://www.w3.org/").count());
    assert!(!text.contains("https://") && !text.contains("src=\""), "everything is inside");
    let Some(browser) = browser() else {
        eprintln!("no browser is installed: the page was not opened");
        return;
    };
    let (dom, console) = opened(browser, &page, "", &[]);
    assert_eq!(console, "");
    assert!(!dom.contains("class=\"broken\""));
    assert!(plots(&dom) >= 5, "{} plots", plots(&dom));
    assert!(dom.contains("Training time") && dom.contains("Test accuracy (share of rows)"));
    assert!(dom.contains("Performance profile") && dom.contains("aria-sort=\"descending\""));
    assert!(dom.contains("class=\"verdict inconclusive\"") || dom.contains("class=\"verdict holds\""), "a verdict");

    // The same as a reader: another axis, a hidden line, a zoom from the keyboard, a sorted column.
    for (x, title) in [("steps", "Steps"), ("passes", "Passes over the training rows"), ("parameters", "Parameters")] {
        let script = format!(
            "<script>{{ const c = document.getElementById('choose-x'); c.value = '{x}'; c.dispatchEvent(new Event('change'));\n\
             const before = document.querySelectorAll('.panels path').length;\n\
             document.querySelector('.legend button').click();\n\
             document.body.dataset.fewer = document.querySelectorAll('.panels path').length < before;\n\
             const plot = document.querySelector('.panel svg'); plot.focus();\n\
             plot.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'ArrowRight' }}));\n\
             document.body.dataset.read = document.querySelector('.readout').textContent;\n\
             const press = (key, shiftKey) => document.querySelector('.panel svg').dispatchEvent(new KeyboardEvent('keydown', {{ key, shiftKey }}));\n\
             const ticks = () => [...document.querySelectorAll('.panel svg text')].map(t => t.textContent).join();\n\
             const whole = ticks(); press('+');\n\
             const near = ticks(); press('ArrowRight', true);\n\
             const beside = ticks(); for (let k = 0; k < 200; k++) press('+');\n\
             press('0'); document.body.dataset.zoom = [whole !== near, near !== beside, whole === ticks()].join();\n\
             press('-'); document.body.dataset.wider = whole === ticks();\n\
             const up = document.querySelectorAll('.controls input')[1];\n\
             const marks = () => document.querySelector('.panel svg g').innerHTML;\n\
             const linear = marks(); up.click();\n\
             document.body.dataset.log = up.checked && linear !== marks(); up.click();\n\
             const buttons = document.querySelectorAll('.legend button');\n\
             for (const type of ['click', 'click', 'dblclick']) buttons[1].dispatchEvent(new MouseEvent(type));\n\
             document.body.dataset.alone = [...document.querySelectorAll('.legend')[0].children].map(b => b.ariaPressed).join();\n\
             buttons[1].dispatchEvent(new MouseEvent('click', {{ shiftKey: true }}));\n\
             const results = () => [...document.querySelectorAll('table')].at(-1);\n\
             [...results().querySelectorAll('th button')].find(b => b.textContent === 'parameters').click();\n\
             buttons[0].click();\n\
             document.body.dataset.sorted = results().querySelector('[aria-sort]').textContent;\n\
             document.querySelector('th button').click(); }}</script>"
        );
        let changed = page.with_file_name(format!("{x}.html"));
        fs::write(&changed, text.replace("</body>", &format!("{script}</body>"))).expect("a page");
        let (dom, console) = opened(browser, &changed, "", &[]);
        assert_eq!(console, "", "{x}");
        assert!(dom.contains(&format!("text-anchor=\"middle\">{title}</text>")), "{x}");
        assert!(dom.contains("data-fewer=\"true\""), "{x}: a line is hidden");
        assert!(dom.contains("data-read=\"") && !dom.contains("data-read=\"\""), "{x}: the cursor reads a point");
        assert!(dom.contains("data-zoom=\"true,true,true\""), "{x}: zoomed, moved, and nothing hangs or stays");
        assert!(dom.contains("data-wider=\"true\""), "{x}: there is nothing beyond everything");
        assert!(dom.contains("data-log=\"true\""), "{x}: the axis is logarithmic");
        assert!(dom.contains("data-alone=\"false,true,false,false\""), "{x}: one line alone");
        assert!(dom.contains("data-sorted=\"parameters\""), "{x}: a table keeps its order");
        assert!(dom.contains("aria-pressed=\"false\""), "{x}");
    }
    keep(browser, &page, "wide", "1400,3600", &[]);
    keep(browser, &page, "dark", "1400,3600", &["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]);
    keep(browser, &page, "narrow", "480,5200", &[]);
    if let Some(folder) = std::env::var_os("PARSIMONY_KEEP_PAGES") {
        // Printed by a reader who chose the dark page.
        let dark = page.with_file_name("dark.html");
        let script = "<script>document.querySelector('.theme').click();</script></body>";
        fs::write(&dark, text.replace("</body>", script)).expect("a page");
        let print = format!("--print-to-pdf={}", Path::new(&folder).join("print.pdf").display());
        opened(browser, &dark, "", &[&print]);
    }
}

/// Names, settings and reasons are text, whatever they hold.
#[test]
fn names_are_text() {
    const NAME: &str = "<img src=x onerror=\"document.title='hurt'\"><!--<script>'&amp;\\u003c";
    let sketches: Vec<Sketch> = run_folder::higgs()
        .into_iter()
        .map(|sketch| Sketch {
            model: if sketch.parameters == 57 { NAME } else { sketch.model },
            reason: "</script><!--",
            hyperparameters: json!({ "kind": NAME, "ridge": sketch.parameters }),
            ..sketch
        })
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let page = write(&sketches, folder.path());
    let Some(browser) = browser() else { return };
    let (dom, console) = opened(browser, &page, "#x=constructor&y=__proto__", &[]);
    assert_eq!(console, "");
    assert!(!dom.contains("class=\"broken\"") && !dom.contains("<img") && !dom.contains("<title>hurt"));
    assert!(dom.contains("&lt;img src=x") && dom.contains("'&amp;amp;\\u003c"), "shown as it is");
    assert!(plots(&dom) >= 5, "{} plots", plots(&dom));
}

#[test]
fn one_cell_has_its_numbers_and_counts_are_whole() {
    let sketch = Sketch { parameters: 1_234_567, ..run_folder::higgs().remove(0) };
    let folder = tempfile::tempdir().expect("a folder");
    let page = write(&[sketch], folder.path());
    let Some(browser) = browser() else { return };
    let (dom, console) = opened(browser, &page, "", &[]);
    assert_eq!(console, "");
    assert!(dom.contains(">1,234,567</td>"), "to the last digit");
}

#[test]
fn odd_runs_open_too() {
    let template = run_folder::higgs().remove(0);
    let nothing = Sketch { rows: Vec::new(), status: "failed", reason: "out of memory", ..template.clone() };
    let untested = Sketch { tested: false, target: None, ..template.clone() };
    for (name, sketches) in [("empty", vec![]), ("failed", vec![nothing]), ("untested", vec![untested])] {
        let folder = tempfile::tempdir().expect("a folder");
        let page = write(&sketches, folder.path());
        let Some(browser) = browser() else { continue };
        let (dom, console) = opened(browser, &page, "", &[]);
        assert_eq!(console, "", "{name}");
        assert!(!dom.contains("class=\"broken\"") && dom.contains("All results"), "{name}");
    }
}

/// 200 cells of 1,000 rows each, a grid of step sizes among them.
#[test]
fn a_large_run_stays_small() {
    let template = run_folder::higgs().into_iter().find(|sketch| sketch.optimizer == "SGD").expect("SGD");
    let mut sketches = Vec::new();
    for (index, step_size) in (0..20).map(|index| (index, 0.001 * 1.6_f64.powi(index))) {
        for seed in 0..10_u64 {
            let noise = |step: u64| ((step * 7919 + seed * 104_729 + index as u64 * 31) % 1000) as f64 * 1e-6;
            let rows = (0..1000_u64).map(|step| Row {
                step: step + 1,
                passes: (step + 1) as f64 / 30.0,
                seconds: (step + 1) as f64 * 0.00123,
                gap: 0.1 / (1.0 + step as f64 * step_size) + noise(step),
                accuracy: 0.64 - 0.1 / (1.0 + step as f64 * step_size) + noise(step),
            });
            let hyperparameters = json!({ "learning_rate": step_size, "momentum": 0.9 });
            sketches.push(Sketch { hyperparameters, seed, rows: rows.collect(), ..template.clone() });
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let page = write(&sketches, folder.path());
    let size = fs::metadata(&page).expect("a page").len();
    assert!(size < 10 << 20, "{size} bytes");
    let Some(browser) = browser() else { return };
    let script = "<script>document.body.dataset.opened = performance.now();</script>";
    let text = fs::read_to_string(&page).expect("a page").replace("</body>", &format!("{script}</body>"));
    fs::write(&page, text).expect("a page");
    let (dom, console) = opened(browser, &page, "", &[]);
    assert_eq!(console, "");
    assert!(dom.contains("Sensitivity to settings") && plots(&dom) >= 3);
    let opened = dom.split("data-opened=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("?");
    eprintln!("{size} bytes, drawn after {opened} ms");
    keep(browser, &page, "large", "1400,3600", &[]);
}
