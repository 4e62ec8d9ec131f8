//! The program `parsimony`: the standard workbench's command line.

fn main() -> std::process::ExitCode {
    parsimony::Workbench::standard().main()
}
