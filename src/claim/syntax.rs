//! Reads an expectation.
//!
//! ```text
//! comparison = sum (">=" | "<=" | ">" | "<" | "==") sum
//! sum        = product {("+" | "-") product}
//! product    = sign {("*" | "/") sign}
//! sign       = "-" sign | number | "(" sum ")" | function "(" sum ")" | path
//! path       = name ["[" key "=" value {"," key "=" value} "]"] "." metric
//! ```
//!
//! A name is that of an optimizer or a model, as it stands or in single quotes, in which two stand for one; a hyphen between
//! two of its letters belongs to it. The function's argument may be a list over folds and seeds; what stands on a side of the
//! comparison may not.

use super::metric::{METRICS, Metric};
use crate::oracle::did_you_mean;
use std::ops::Range;

/// A mistake in an expression: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the expression at fault.
    pub at: Range<usize>,
    /// What was found.
    pub finding: String,
    /// What is accepted.
    pub remedy: String,
}

impl Mistake {
    pub(super) fn new(at: Range<usize>, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { at, finding: finding.into(), remedy: remedy.into() }
    }
}

/// How two sides are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `==`
    Equal,
}

/// A comparison of two sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The left side.
    pub left: Expression,
    /// How they are compared.
    pub relation: Relation,
    /// The right side.
    pub right: Expression,
}

/// Functions of a list that answer one number, and functions of each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// The middle of a list.
    Median,
    /// Its mean.
    Mean,
    /// Its smallest.
    Min,
    /// Its largest.
    Max,
    /// The absolute value.
    Abs,
    /// The square root.
    Sqrt,
    /// The logarithm to base 10.
    Log10,
}

impl Function {
    const NAMES: [(&'static str, Self); 7] = [
        ("median", Self::Median),
        ("mean", Self::Mean),
        ("min", Self::Min),
        ("max", Self::Max),
        ("abs", Self::Abs),
        ("sqrt", Self::Sqrt),
        ("log10", Self::Log10),
    ];

    /// Whether it makes one number of a list.
    pub fn is_aggregate(self) -> bool {
        matches!(self, Self::Median | Self::Mean) || self.is_extreme()
    }

    /// Whether it is an end of a list, which further seeds or splits move outwards.
    pub fn is_extreme(self) -> bool {
        matches!(self, Self::Min | Self::Max)
    }
}

/// Arithmetic of two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
}

/// A side of a comparison, or a part of it, with its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    /// Its bytes in the text.
    pub at: Range<usize>,
    /// What it is.
    pub node: Node,
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A number.
    Number(f64),
    /// A metric of some cells.
    Path(Path),
    /// The opposite number.
    Negate(Box<Expression>),
    /// Arithmetic.
    Binary(Operator, Box<Expression>, Box<Expression>),
    /// A function.
    Call(Function, Box<Expression>),
}

/// A metric of the cells that a name and conditions choose.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// The name of an optimizer or a model.
    pub name: String,
    /// Settings that the cells must have.
    pub conditions: Vec<(String, String)>,
    /// The metric.
    pub metric: &'static Metric,
}

impl Expression {
    /// Calls `visit` for every path in it, from left to right.
    pub fn paths<'a>(&'a self, visit: &mut dyn FnMut(&'a Path, &Range<usize>)) {
        match &self.node {
            Node::Number(_) => {}
            Node::Path(path) => visit(path, &self.at),
            Node::Negate(inner) | Node::Call(_, inner) => inner.paths(visit),
            Node::Binary(_, left, right) => {
                left.paths(visit);
                right.paths(visit);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Name(String),
    /// A name in quotes, which is never a function's.
    Quoted(String),
    Sign(&'static str),
    End,
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Self::Number(value) => value.to_string(),
            Self::Name(name) => format!("`{name}`"),
            Self::Quoted(name) => format!("'{name}'"),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end".to_owned(),
        }
    }
}

const SIGNS: [&str; 15] = [">=", "<=", "==", ">", "<", "=", "+", "-", "*", "/", "(", ")", "[", "]", ","];

/// Splits a text into tokens with their places. A dot is a sign of its own after a name.
fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Mistake> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        let rest = &text[at..];
        let start = at;
        let token = if character.is_whitespace() {
            at += character.len_utf8();
            continue;
        } else if character == '\'' {
            let Some((name, length)) = quoted(rest) else {
                return Err(Mistake::new(start..text.len(), "a quote that does not end", "close the name with '"));
            };
            at += length;
            Token::Quoted(name)
        } else if character.is_ascii_digit() {
            at += number_length(rest.as_bytes());
            let value: Option<f64> = text[start..at].replace('_', "").parse().ok();
            // 1e999 would be infinity, beside which everything is small.
            let Some(value) = value.filter(|value| value.is_finite()) else {
                let finding = format!("`{}` is no number", &text[start..at]);
                return Err(Mistake::new(start..at, finding, "write it as 0.64, 1e-3 or 9_001, below 1.8e308"));
            };
            Token::Number(value)
        } else if character.is_alphabetic() || character == '_' {
            // After a dot stands a metric, whose name has no hyphen.
            let after_dot = matches!(tokens.last(), Some((Token::Sign("."), _)));
            while let Some(next) = text[at..].chars().next() {
                let inner = next == '-'
                    && !after_dot
                    && text[at + 1..].chars().next().is_some_and(char::is_alphanumeric)
                    && at > start;
                if !(next.is_alphanumeric() || next == '_' || inner) {
                    break;
                }
                at += next.len_utf8();
            }
            Token::Name(text[start..at].to_owned())
        } else if bytes[at] == b'.' {
            at += 1;
            Token::Sign(".")
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            at += sign.len();
            Token::Sign(sign)
        } else {
            let end = at + character.len_utf8();
            return Err(Mistake::new(
                start..end,
                format!("{character:?} has no meaning here"),
                "an expectation compares two sides, as in median(irls.test_accuracy) >= 0.64",
            ));
        };
        if tokens.len() == LONGEST {
            let finding = format!("more than {LONGEST} names, numbers and signs");
            return Err(Mistake::new(start..at, finding, "make several expectations of it"));
        }
        tokens.push((token, start..at));
    }
    tokens.push((Token::End, text.len()..text.len()));
    Ok(tokens)
}

/// The name in the quotes that a text begins with, and their bytes; a quote within is written twice. `None` where they do
/// not end.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut end = 1;
    loop {
        end += text[end..].find('\'')?;
        if !text[end + 1..].starts_with('\'') {
            return Some((text[1..end].replace("''", "'"), end + 1));
        }
        end += 2;
    }
}

/// Bytes of the number that a text begins with.
fn number_length(bytes: &[u8]) -> usize {
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut end = 0;
    while digit(end) || bytes.get(end).is_some_and(|&b| b == b'_' || (b == b'.' && digit(end + 1))) {
        end += 1;
    }
    if bytes.get(end).is_some_and(|b| b.eq_ignore_ascii_case(&b'e')) {
        let sign = usize::from(bytes.get(end + 1).is_some_and(|&b| b == b'+' || b == b'-'));
        if digit(end + 1 + sign) {
            end += 2 + sign;
            while digit(end) {
                end += 1;
            }
        }
    }
    end
}

/// Deeper nesting than this is a mistake, not an expectation.
const DEEPEST: usize = 100;
/// So are more tokens: a sum is a tree as deep as it has terms, and has to fit on the stack.
const LONGEST: usize = 1000;

struct Parser {
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    depth: usize,
}

impl Comparison {
    /// Reads an expectation.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
        let left = parser.sum()?;
        let accepts = "a comparison takes >=, <=, >, < or == between its two sides";
        let relation = match parser.peek() {
            Token::Sign(">=") => Relation::AtLeast,
            Token::Sign("<=") => Relation::AtMost,
            Token::Sign(">") => Relation::Greater,
            Token::Sign("<") => Relation::Less,
            Token::Sign("==") => Relation::Equal,
            _ => return Err(parser.unexpected(accepts)),
        };
        parser.next += 1;
        let right = parser.sum()?;
        if *parser.peek() != Token::End {
            return Err(parser.unexpected("the right side ends here: one comparison to an expectation"));
        }
        let read = Self { left, relation, right };
        let mut paths = 0;
        read.paths(&mut |_, _| paths += 1);
        if paths == 0 {
            let remedy = "an expectation speaks of what was measured, as in median(irls.test_accuracy) >= 0.64";
            return Err(Mistake::new(0..text.len(), "numbers alone, whatever the cells come to", remedy));
        }
        Ok(read)
    }

    /// Every path in it, from left to right.
    pub fn paths<'a>(&'a self, visit: &mut dyn FnMut(&'a Path, &Range<usize>)) {
        self.left.paths(visit);
        self.right.paths(visit);
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn place(&self) -> Range<usize> {
        self.tokens[self.next].1.clone()
    }

    fn unexpected(&self, remedy: &str) -> Mistake {
        Mistake::new(self.place(), format!("{} is not expected here", self.peek().shown()), remedy)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_there = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(is_there);
        is_there
    }

    fn require(&mut self, sign: &str, remedy: &str) -> Result<(), Mistake> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(remedy)) }
    }

    fn sum(&mut self) -> Result<Expression, Mistake> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::product)
    }

    fn product(&mut self) -> Result<Expression, Mistake> {
        self.chain(&[("*", Operator::Multiply), ("/", Operator::Divide)], Self::sign)
    }

    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Result<Expression, Mistake>,
    ) -> Result<Expression, Mistake> {
        let mut left = operand(self)?;
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.takes(sign)) {
            let right = operand(self)?;
            let at = left.at.start..right.at.end;
            left = Expression { at, node: Node::Binary(*operator, Box::new(left), Box::new(right)) };
        }
        Ok(left)
    }

    fn sign(&mut self) -> Result<Expression, Mistake> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.unexpected("that is nested too deeply: make several expectations of it"));
        }
        let start = self.place().start;
        let node = if self.takes("-") {
            Node::Negate(Box::new(self.sign()?))
        } else if self.takes("(") {
            let inner = self.sum()?;
            self.require(")", "a closing parenthesis is missing")?;
            inner.node
        } else {
            self.operand()?
        };
        self.depth -= 1;
        Ok(Expression { at: start..self.tokens[self.next - 1].1.end, node })
    }

    /// A number, a function or a path.
    fn operand(&mut self) -> Result<Node, Mistake> {
        let place = self.place();
        let name = match self.peek().clone() {
            Token::Number(value) => {
                self.next += 1;
                return Ok(Node::Number(value));
            }
            Token::Name(name) | Token::Quoted(name) => name,
            _ => {
                return Err(self.unexpected(
                    "a side is made of numbers, of metrics such as irls.test_accuracy, of + - * / and of functions",
                ));
            }
        };
        let is_quoted = matches!(self.peek(), Token::Quoted(_));
        self.next += 1;
        if !is_quoted && self.takes("(") {
            let known = || Function::NAMES.iter().map(|(name, _)| *name);
            let Some((_, function)) = Function::NAMES.iter().find(|(known, _)| *known == name) else {
                let all = known().collect::<Vec<_>>().join(", ");
                let remedy = format!("{}functions are {all}", did_you_mean(&name, known()));
                return Err(Mistake::new(place, format!("there is no function `{name}`"), remedy));
            };
            let inner = self.sum()?;
            self.require(")", "a function takes one argument and a closing parenthesis")?;
            return Ok(Node::Call(*function, Box::new(inner)));
        }
        self.path(name)
    }

    fn path(&mut self, name: String) -> Result<Node, Mistake> {
        let mut conditions = Vec::new();
        if self.takes("[") {
            loop {
                conditions.push(self.condition()?);
                if !self.takes(",") {
                    break;
                }
            }
            self.require("]", "conditions stand in brackets, as in sgd[learning_rate = 0.1, model = 'wide']")?;
        }
        self.require(".", "a name is followed by a dot and a metric, as in irls.test_accuracy")?;
        let place = self.place();
        let Token::Name(metric) = self.peek().clone() else {
            return Err(self.unexpected("after the dot stands a metric, such as test_accuracy"));
        };
        self.next += 1;
        let Some(metric) = Metric::named(&metric) else {
            let known = || METRICS.iter().map(|metric| metric.name);
            let all = known().collect::<Vec<_>>().join(", ");
            let remedy = format!("{}metrics are {all}", did_you_mean(&metric, known()));
            return Err(Mistake::new(place, format!("there is no metric `{metric}`"), remedy));
        };
        Ok(Node::Path(Path { name, conditions, metric }))
    }

    fn condition(&mut self) -> Result<(String, String), Mistake> {
        const ACCEPTS: &str = "a condition is a setting, = and a value, as in batch_size = 32";
        let Token::Name(key) = self.peek().clone() else { return Err(self.unexpected(ACCEPTS)) };
        self.next += 1;
        self.require("=", ACCEPTS)?;
        let place = self.place();
        let value = match self.peek().clone() {
            Token::Name(value) | Token::Quoted(value) => value,
            Token::Number(value) => value.to_string(),
            Token::Sign("-") => {
                self.next += 1;
                match self.peek() {
                    Token::Number(value) => (-value).to_string(),
                    _ => return Err(Mistake::new(place, "a minus sign without a number", ACCEPTS)),
                }
            }
            _ => return Err(self.unexpected(ACCEPTS)),
        };
        self.next += 1;
        Ok((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> (String, String) {
        let mistake = Comparison::parse(text).expect_err(text);
        (text[mistake.at.clone()].to_owned(), format!("{}; {}", mistake.finding, mistake.remedy))
    }

    #[test]
    fn operators_bind_as_in_arithmetic_and_names_keep_their_hyphens() {
        let read = Comparison::parse("1 + 2 * hessian-free.steps - -3 >= mean(a-b[c = -2].flops-d.flops)").unwrap();
        let Node::Binary(Operator::Subtract, left, _) = &read.left.node else { panic!("{read:?}") };
        let Node::Binary(Operator::Add, _, product) = &left.node else { panic!("{read:?}") };
        assert!(matches!(product.node, Node::Binary(Operator::Multiply, ..)));
        let mut names = Vec::new();
        read.paths(&mut |path, _| names.push((path.name.as_str(), path.conditions.clone())));
        assert_eq!(names[0].0, "hessian-free");
        assert_eq!(names[1], ("a-b", vec![("c".to_owned(), "-2".to_owned())]));
        assert_eq!(names[2].0, "d");
        assert!(Comparison::parse("'SGD, Nesterov'[batch_size = 1e3].steps < 9_001").is_ok());
    }

    #[test]
    fn mistakes_are_found_where_they_are() {
        assert_eq!(mistake("median(irls.test_acuracy) > 0.6").0, "test_acuracy");
        assert!(mistake("median(irls.test_acuracy) > 0.6").1.contains("test_accuracy"));
        assert_eq!(mistake("medan(irls.steps) > 1").0, "medan");
        assert_eq!(mistake("median(irls.steps > 1").0, ">");
        assert_eq!(mistake("irls.steps").0, "");
        assert_eq!(mistake("irls.steps > 1 > 2").0, ">");
        assert_eq!(mistake("irls > 1").0, ">");
        assert_eq!(mistake("irls.steps > 1.2.3").0, "1.2.3");
        assert_eq!(mistake("'irls.steps > 1").0, "'irls.steps > 1");
        assert_eq!(mistake("irls.steps ≥ 1").0, "≥");
        assert_eq!(mistake("sgd[batch_size].steps > 1").0, "]");
        assert_eq!(mistake("irls.steps < 1e999").0, "1e999", "infinity is no number to compare with");
        assert_eq!(mistake("sgd\u{2212}irls.steps > 1").0, "\u{2212}");
        assert!(mistake("1 + 1 < 3").1.contains("numbers alone"));
    }

    /// Neither depth nor length overflows the stack, not even of a thread that has little of it.
    #[test]
    fn nothing_that_can_be_written_is_too_much() {
        for open in ["(", "-", "abs(", "- ("] {
            for (times, complaint) in [(101, "too deeply"), (100_000, "more than 1000")] {
                let said = mistake(&format!("{}irls.steps > 2", open.repeat(times))).1;
                assert!(said.contains(complaint), "{said}");
            }
        }
        assert!(mistake(&format!("irls.steps{} > 2", " + 1".repeat(100_000))).1.contains("more than 1000"));
        let longest = format!("irls.steps{} > 2", " + 1".repeat(490));
        let read = || Comparison::parse(&longest).map(|read| read.paths(&mut |_, _| {})).is_ok();
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        assert!(std::thread::scope(|scope| thread.spawn_scoped(scope, read).unwrap().join().unwrap()));
    }

    #[test]
    fn names_in_quotes_hold_anything() {
        for (written, name) in [("'Adam''s > rib, \u{2265} 1'", "Adam's > rib, \u{2265} 1"), ("''''", "'"), ("''", "")]
        {
            let text = format!("{written}.steps > 1");
            let read = Comparison::parse(&text).expect(&text);
            read.paths(&mut |path, _| assert_eq!(path.name, name));
        }
        assert_eq!(mistake("'it''s.steps > 1").0, "'it''s.steps > 1");
    }
}
